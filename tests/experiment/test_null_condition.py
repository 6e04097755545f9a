"""The unconditional twin: the encoded empty prompt where there is one, else the network's own."""

import numpy as np

from tpdiff_jax.experiment.null_condition import make_null_cond
from tpdiff_jax.models import make_network


def test_labels_become_the_null_class_and_the_rest_stays() -> None:
    network = make_network("video_dit", channels=1, num_classes=10)
    cond = {"label": np.array([[3], [7]], np.int32), "other": np.ones((2, 4))}
    null = make_null_cond(network, {})(cond)
    assert null["label"].tolist() == [[10], [10]] and null["other"] is cond["other"]


def test_the_encoded_prompt_takes_the_place_of_every_sample_s_text() -> None:
    sizes = {"num_text_tokens": 3, "text_dim": 2, "pooled_dim": 2}
    network = make_network("flux", fields=sizes, channels=4)
    cond = {
        "text": np.ones((2, 3, 2), np.float16),
        "text_mask": np.ones((2, 3), bool),
        "pooled": np.ones((2, 2), np.float16),
    }
    encoded = {
        "text": np.arange(6, dtype=np.float16).reshape(3, 2),
        "text_mask": np.array([True, False, False]),
    }
    null = make_null_cond(network, encoded)(cond)
    assert {k: (v.shape, v.dtype) for k, v in null.items()} == {
        k: (v.shape, v.dtype) for k, v in cond.items()
    }
    for row in range(2):
        np.testing.assert_array_equal(null["text"][row], encoded["text"])
        np.testing.assert_array_equal(null["text_mask"][row], encoded["text_mask"])
    assert not np.any(null["pooled"]), "what is not encoded is the network's own"
