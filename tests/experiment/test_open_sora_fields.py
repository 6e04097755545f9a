"""Open-Sora in an experiment: the ends of betas, a shift by the shape, no text of its own."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from configs import captioned_digits_open_sora, flow, open_sora_v1, open_sora_v1_2
from tests.small_clips import TOKENS, WIDTH, clip_config, prepare_clips
from tests.tiny import set_field
from tpdiff_jax.experiment.build import build_experiment

SMALL = {"model.hidden_size": 8, "model.num_heads": 1, "model.depth": 1, "model.text_dim": WIDTH}
SMALL |= {"model.num_text_tokens": TOKENS}


def small(module, **fields):
    config = module.get_config()
    for name, value in {**SMALL, **fields}.items():
        set_field(config, name, value)
    return config


def of_flow(shape_field, **fields):
    config = flow.get_config()
    with config.unlocked():
        config.pyramid.time_shift_shape = shape_field
    for name, value in fields.items():
        set_field(config, name, value)
    return config


def test_open_sora_1_0_has_the_betas_of_ddpm():
    """By numpy: 1000 of them, evenly from 1e-4 to 2e-2."""
    path = build_experiment(small(open_sora_v1), frame_shape=(4, 8, 8, 4)).pyramid.path
    alphas = np.cumprod(1.0 - np.linspace(1e-4, 2e-2, 1000))
    for index in (0, 333, 999):
        scales = path.host_scales((index + 1) / 1000)
        assert scales.gamma == pytest.approx(math.sqrt(alphas[index]), rel=1e-12)
    assert path.network_time(jnp.float32(0.5)) == 499.0 and path.prediction == "eps"


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (0.0, 0.02, "path.beta_start is 0.0; allowed: above 0"),
        (0.01, 0.001, "path.beta_end is 0.001; allowed: at least path.beta_start"),
        (0.01, 1.0, "path.beta_end is 1.0; allowed: at least path.beta_start .*below 1"),
    ],
)
def test_betas_that_are_no_schedule_are_refused(start, end, message):
    config = small(open_sora_v1, **{"path.beta_start": start, "path.beta_end": end})
    with pytest.raises(ValueError, match=message):
        build_experiment(config, frame_shape=(4, 8, 8, 4))


@pytest.mark.parametrize(
    ("pixels", "num_frames"),
    [((512, 512), 1), ((256, 256), 20), ((240, 432), 20), ((720, 1280), 4), ((144, 256), 40)],
)
def test_open_sora_1_2_shifts_times_by_resolution_and_frames(pixels, num_frames):
    """Its transform: sqrt(pixels / 512^2) sqrt(latent frames), of latents of an eighth of sides."""
    sides = [side // 8 for side in pixels]
    config = small(open_sora_v1_2, **{"pyramid.frame_strides": (1,)})
    found = build_experiment(config, frame_shape=(num_frames, *sides, 4)).pyramid.time_shift
    expected = math.sqrt(math.prod(pixels) / 512**2) * math.sqrt(num_frames)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("of", "shift", "expected"),
    [((), 3.0, 3.0), ((4, 16, 16), 1.0, 4.0), ((16, 32, 32), 3.0, 3.0), ((64, 32, 32), 3.0, 1.5)],
)
def test_a_shift_of_one_shape_is_carried_to_others(of, shift, expected):
    """16 frames of 32 x 32."""
    config = of_flow(of, **{"pyramid.time_shift": shift})
    assert build_experiment(config).pyramid.time_shift == pytest.approx(expected)


@pytest.mark.parametrize("of", [(4, 16), (0, 16, 16), (4, 16, -1), (1, 2, 3, 4)])
def test_a_shape_that_is_none_is_refused(of):
    with pytest.raises(ValueError, match=r"pyramid.time_shift_shape=\(.*\) must be \(\), or frame"):
        build_experiment(of_flow(of))


@pytest.mark.slow
def test_every_bucket_has_the_shift_of_its_own_shape(tmp_path):
    config = clip_config(prepare_clips(tmp_path, "buckets"), "buckets")
    with config.unlocked():
        config.pyramid.time_shift_shape = (1, 16, 16)
    shifts = {c.bucket: c.pyramid.time_shift for c in build_experiment(config).shapes}
    expected = {"4x16x24": math.sqrt(6.0), "2x24x16": math.sqrt(3.0)}
    assert shifts == pytest.approx(expected)


def test_open_sora_s_own_no_text_goes_before_the_encoded_empty_prompt(tmp_path):
    folder = str(prepare_clips(tmp_path, "latents"))
    fields = {"data.folder": folder, "model.patch_size": 2, "pyramid.frame_strides": (1,)}
    own = build_experiment(small(captioned_digits_open_sora, **fields))
    other = build_experiment(clip_config(folder, "latents"))
    mask = np.array([[True, True, False], [True, False, False]])
    cond = {
        "text": jnp.ones((2, TOKENS, WIDTH), jnp.float16),
        "text_mask": jnp.asarray(mask),
        "pooled": jnp.ones((2, WIDTH), jnp.float16),
    }
    null = own.task.null_cond(cond)
    assert not np.any(null["text"]) and null["text"].dtype == jnp.float16
    np.testing.assert_array_equal(null["text_mask"], mask)
    np.testing.assert_array_equal(null["pooled"], cond["pooled"])
    encoded = other.shapes[0].facts.null_cond["text"]
    np.testing.assert_array_equal(other.task.null_cond(cond)["text"], np.stack([encoded] * 2))
