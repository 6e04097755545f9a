"""Requests: labels in turn, repetition, and the names of what is asked for."""

import numpy as np

from tpdiff_jax.data.requests import Requests, cycle_labels, requests_of_labels


def test_labels_go_through_all_classes_evenly() -> None:
    assert np.bincount(cycle_labels(20, 1, 10)[:, 0]).tolist() == [2] * 10
    pairs = cycle_labels(100, 2, 10)
    assert len({tuple(row) for row in pairs.tolist()}) == 100, "every pair once"
    assert cycle_labels(3, 0, 0).shape == (3, 0)


def test_labels_have_names_and_no_label_has_none() -> None:
    assert requests_of_labels(np.array([[3, 7]], np.int32)).captions == ["label 3-7"]
    assert requests_of_labels(np.zeros((2, 0), np.int32)).captions == []


def test_requests_start_again_or_are_cut() -> None:
    cond = {"text": np.arange(6).reshape(3, 2)}
    requests = Requests(cond, ["a", "b", "c"])
    longer, shorter = requests.repeated_to(4), requests.repeated_to(2)
    assert longer.captions == ["a", "b", "c", "a"] and shorter.captions == ["a", "b"]
    np.testing.assert_array_equal(longer.cond["text"], cond["text"][[0, 1, 2, 0]])
    assert shorter.num_videos == 2
    assert Requests(cond, []).repeated_to(5).captions == []
