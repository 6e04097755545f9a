"""What a library user may hand in: other float types, wide mode, lists, plain numbers, mistakes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.guidance import guided
from tpdiff_jax.method.losses import loss_weight, mean_loss_weight
from tpdiff_jax.method.noise_alignment import AlignmentSpec, aligned_noise
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.sampler_spec import SamplerSpec, split_steps
from tpdiff_jax.method.samplers import sample, sample_from_noise
from tpdiff_jax.method.stage_line import (
    line_to_target,
    output_to_line,
    stage_line,
)
from tpdiff_jax.method.stage_targets import (
    sample_times,
    stage_end_points,
    stage_videos,
    training_point,
)
from tpdiff_jax.method.stage_transition import lift_noise, stage_transition
from tpdiff_jax.method.stages import make_pyramid
from tpdiff_jax.types import Positions

PATHS = [
    FlowPath(), FlowPath(prediction="data"), DDIMPath(), DDIMPath(prediction="eps"),
    DDIMPath(zero_terminal_snr=True, prediction="data"),
]  # fmt: skip
FLOW = FlowPath()
SHAPE = (4, 2, 2)
STRIDES = ((4, 2, 2), (2, 1, 1), (1, 1, 1))
HALVES = (jnp.bfloat16, jnp.float16)
SPEC = SamplerSpec(steps_per_stage=(3, 3, 3), solver="second_order")


def make(path=FLOW, **options):
    return make_pyramid(path, shape=SHAPE, strides=STRIDES, **options)


def network(x_t, t, positions, strides, cond):
    return 0.5 * jnp.tanh(x_t) * jnp.cos(t / 400.0)[:, None, None, None, None]


def noises_of(pyramid, b=2):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(b, *stage.shape, 1) for stage in pyramid.stages]
    return [jax.random.normal(*pair) for pair in zip(keys, shapes, strict=True)]


def videos(b=3):
    return np.random.default_rng(0).standard_normal((b, *SHAPE, 1)).astype(np.float32)


@pytest.mark.parametrize("path", PATHS)
def test_wide_mode_samples_in_float32_what_the_plain_mode_does(path):
    pyramid, keys = make(path), jax.random.split(jax.random.key(0), 2)
    plain = sample(network, pyramid, SPEC, keys, 1)
    with jax.enable_x64(True):
        wide = sample(network, make(path), SPEC, keys, 1)
    assert plain.dtype == wide.dtype == jnp.float32
    np.testing.assert_allclose(wide, plain, atol=5e-6 * np.abs(plain).max())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_wide_mode_trains_in_float32_on_what_the_plain_mode_does(path, index):
    def step(pyramid):
        key = jax.random.key(3)
        x_0, keys = jnp.asarray(videos(), jnp.float32), jax.random.split(key, 3)
        found = []
        for mode in ("nearest", "hungarian", "candidates"):
            spec = AlignmentSpec(mode=mode, group_size=3)
            eps, stats = aligned_noise(pyramid, index, x_0, keys, spec)
            found += [eps, *stats.values()]
        t = sample_times(pyramid, index, key, 3)
        point = training_point(pyramid, index, x_0, found[0], t)
        weights = loss_weight(pyramid, index, t)
        line = output_to_line(pyramid, index, point.x_t, 0.5, point.target)
        return [*found, t, *point, weights, pyramid.network_time(index, t), *line]

    plain = step(make(path))
    with jax.enable_x64(True):
        wide = step(make(path))
    for one, other in zip(wide, plain, strict=True):
        assert one.dtype == other.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("path", PATHS)
def test_half_precision_noise_is_sampled_from_in_float32(path, half):
    """The result is that of the same noise widened first; times are told to their last digit."""
    pyramid, told = make(path), []

    def listening(x_t, t, positions, strides, cond):
        assert x_t.dtype == t.dtype == jnp.float32
        jax.debug.callback(lambda time: told.append(float(time[0])), t, ordered=True)
        return network(x_t, t, positions, strides, cond)

    noises = [noise.astype(half) for noise in noises_of(pyramid)]
    found = sample_from_noise(listening, pyramid, SPEC, noises)
    jax.effects_barrier()
    widened = [noise.astype(jnp.float32) for noise in noises]
    expected = sample_from_noise(network, pyramid, SPEC, widened)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=5e-6 * np.abs(expected).max())
    offset = 0.0 if isinstance(path, FlowPath) else 1.0
    grids = [np.linspace(stage.t_start, stage.t_end, 4)[:-1] for stage in pyramid.stages]
    np.testing.assert_allclose(told, 1000.0 * np.concatenate(grids) - offset, atol=1e-3)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_half_precision_videos_noise_and_times_are_trained_on_in_float32(path, half, index):
    pyramid = make(path)
    x_0 = jnp.asarray(videos(), half)
    eps = noises_of(pyramid, 3)[index].astype(half)
    stage = pyramid.stages[index]
    t = jnp.full(3, (stage.t_start + stage.t_end) / 2, half)
    exact = [a.astype(jnp.float32) for a in (x_0, eps, t)]
    pairs = [
        (training_point(pyramid, index, x_0, eps, t), training_point(pyramid, index, *exact)),
        (stage_end_points(pyramid, index, x_0, eps),
         stage_end_points(pyramid, index, exact[0], exact[1])),
        ([pyramid.network_time(index, t), loss_weight(pyramid, index, t)],
         [pyramid.network_time(index, exact[2]), loss_weight(pyramid, index, exact[2])]),
        (output_to_line(pyramid, index, eps, t, eps),
         output_to_line(pyramid, index, exact[1], exact[2], exact[1])),
    ]  # fmt: skip
    for found, expected in pairs:
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == jnp.float32
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("function", [stage_transition, lift_noise])
def test_half_precision_jumps_are_made_in_float32(function, half):
    pyramid = make(upsample="linear")
    x, z, _ = (noise.astype(half) for noise in noises_of(pyramid))
    found = function(pyramid, 1, x, z)
    assert found.dtype == jnp.float32
    exact = function(pyramid, 1, x.astype(jnp.float32), z.astype(jnp.float32))
    np.testing.assert_array_equal(found, exact)


def test_half_precision_answers_are_guided_in_float32():
    """1 + 30 (1.0078125 - 1) = 1.234375 has no bfloat16 of its own."""
    values = {"on": jnp.asarray([1.0078125], jnp.bfloat16)}

    def answering(x_t, t, positions, strides, cond):
        return jnp.broadcast_to(cond["on"][:, None, None, None, None], x_t.shape)

    x_t = jnp.zeros((1, 1, 1, 1, 1))
    null = {"on": jnp.ones(1, jnp.bfloat16)}
    positions = Positions(*[jnp.zeros(1)] * 3)
    out = guided(answering, 30.5, null)(x_t, jnp.zeros(1), positions, (1, 1, 1), values)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 1.0 + 30.5 / 128)


@pytest.mark.parametrize("mode", ["nearest", "hungarian", "candidates", "none"])
@pytest.mark.parametrize("wrong", [(8, 2, 2), (3, 2, 2), (4, 3, 2), (4, 2, 1)])
def test_videos_of_another_shape_are_refused_by_every_reader(mode, wrong):
    pyramid, keys = make(), jax.random.split(jax.random.key(0), 3)
    x_0 = np.zeros((3, *wrong, 1), np.float32)
    with pytest.raises(AssertionError):
        aligned_noise(pyramid, 0, x_0, keys, AlignmentSpec(mode=mode, group_size=3))
    with pytest.raises(AssertionError):
        stage_videos(pyramid, 0, x_0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.bool_])
def test_videos_of_whole_numbers_are_refused_by_name(dtype):
    pyramid, keys = make(), jax.random.split(jax.random.key(0), 3)
    x_0, eps = np.zeros((3, *SHAPE, 1), dtype), np.zeros((3, *SHAPE, 1), np.float32)
    for call in (
        lambda: stage_videos(pyramid, 2, x_0),
        lambda: stage_end_points(pyramid, 2, x_0, eps),
        lambda: training_point(pyramid, 2, x_0, eps, jnp.full(3, 0.2)),
        lambda: aligned_noise(pyramid, 2, x_0, keys, AlignmentSpec(group_size=3)),
    ):
        with pytest.raises(ValueError, match=r"^x_0 has type (uint8|int32|bool); allowed"):
            call()


@pytest.mark.parametrize("index", [-1, -3, 3])
def test_a_stage_that_is_not_there_is_refused_everywhere(index):
    pyramid, keys, x_0 = make(), jax.random.split(jax.random.key(0), 3), videos()
    eps, t = jnp.zeros_like(x_0), jnp.full(3, 0.2)
    line = stage_line(pyramid, 2, x_0, x_0, eps)
    calls = (
        lambda: pyramid.stage(index),
        lambda: pyramid.network_time(index, t),
        lambda: sample_times(pyramid, index, jax.random.key(0), 3),
        lambda: stage_videos(pyramid, index, x_0),
        lambda: stage_end_points(pyramid, index, x_0, eps),
        lambda: training_point(pyramid, index, x_0, eps, t),
        lambda: aligned_noise(pyramid, index, x_0, keys, AlignmentSpec(group_size=3)),
        lambda: stage_line(pyramid, index, x_0, x_0, eps),
        lambda: line_to_target(pyramid, index, line, t),
        lambda: output_to_line(pyramid, index, x_0, t, x_0),
        lambda: loss_weight(pyramid, index, t),
        lambda: mean_loss_weight(pyramid, index),
    )
    for call in calls:
        with pytest.raises(ValueError, match=rf"^stage_index is {index}; allowed: 0 to 2"):
            call()


@pytest.mark.parametrize(
    ("scale", "kept"),
    [(4.0, (4.0,)), (4, (4.0,)), (np.float32(4.0), (4.0,)), ([1, 2, 3], (1.0, 2.0, 3.0)),
     (np.array([1.0, 2.0, 3.0]), (1.0, 2.0, 3.0))],
)  # fmt: skip
def test_guidance_takes_one_number_or_a_list_of_them(scale, kept):
    spec = SamplerSpec(steps_per_stage=(1, 1, 1), guidance_scale=scale)
    assert spec.guidance_scale == kept
    assert spec == SamplerSpec(steps_per_stage=[1, 1, 1], guidance_scale=kept)


def test_lists_make_a_spec_that_can_be_hashed():
    pyramid = make()
    grids = [np.linspace(stage.t_start, stage.t_end, 3) for stage in pyramid.stages]
    lists = SamplerSpec(steps_per_stage=[2, 2, 2], time_grids=grids, guidance_scale=[1.0])
    tuples = SamplerSpec(
        steps_per_stage=(2, 2, 2), time_grids=tuple(tuple(grid.tolist()) for grid in grids)
    )
    assert hash(lists) == hash(tuples) and lists == tuples


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps_per_stage", 30), ("steps_per_stage", "30"), ("steps_per_stage", (1.5, 2)),
     ("steps_per_stage", None), ("guidance_scale", "4"), ("guidance_scale", None),
     ("guidance_scale", ("4",)), ("time_grids", 0.5), ("time_grids", (1.0, 0.0))],
)  # fmt: skip
def test_a_spec_refuses_what_is_no_list_of_numbers_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^sample\.{field} is"):
        SamplerSpec(**{"steps_per_stage": (2, 2), field: value})


@pytest.mark.parametrize("value", [2.0, "2", True, None])
def test_counts_that_are_no_whole_numbers_are_refused_by_name(value):
    pyramid, keys = make(), jax.random.split(jax.random.key(0), 2)
    calls = {
        "sample.num_steps": lambda: split_steps(value, 1),
        "alignment.group_size": lambda: AlignmentSpec(group_size=value),
        "alignment.num_candidates": lambda: AlignmentSpec(num_candidates=value),
        "path.num_grid_points": lambda: DDIMPath(num_grid_points=value),
        "num_channels": lambda: sample(network, pyramid, SPEC, keys, value),
        "batch_size": lambda: sample_times(pyramid, 0, keys[0], value),
    }
    for field, call in calls.items():
        with pytest.raises(ValueError, match=rf"^{field} is {value!r}; allowed"):
            call()


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"strides": 4}, "pyramid.strides"), ({"stage_fractions": 0.5}, "pyramid.stage_fractions"),
     ({"shape": 16}, "shape"), ({"other_shapes": 16}, "other_shapes"),
     ({"stage_weighting": "flat"}, "pyramid.stage_weighting")],
)  # fmt: skip
def test_a_pyramid_refuses_plain_numbers_and_unknown_words_by_name(changes, field):
    with pytest.raises(ValueError, match=rf"^{field} is .*allowed"):
        make_pyramid(FlowPath(), **{"shape": SHAPE, **changes})


@pytest.mark.parametrize("place", list(itertools.permutations((1e-8, 1.0, 1.0))))
def test_windows_below_what_float32_times_resolve_are_refused(place):
    for path in (FlowPath(), DDIMPath(zero_terminal_snr=True)):
        with pytest.raises(ValueError, match=r"^pyramid\.stage_fractions .*allowed"):
            make_pyramid(path, shape=SHAPE, strides=STRIDES, stage_fractions=place)


def test_times_of_the_narrowest_windows_stay_inside_them():
    pyramid = make(stage_fractions=(2e-6, 1.0, 2e-6))
    for index, stage in enumerate(pyramid.stages):
        for seed in range(20):
            t = sample_times(pyramid, index, jax.random.key(seed), 64)
            t = np.asarray(t, np.float64)
            assert stage.t_end <= t.min() and t.max() < stage.t_start


@pytest.mark.parametrize("which", ["cond", "null_cond"])
@pytest.mark.parametrize("entry", [np.zeros(3), np.zeros((1, 2)), np.float32(0.0)])
def test_a_condition_of_another_batch_is_refused_by_name(which, entry):
    pyramid = make()
    conds = {"cond": {"label": np.zeros(2)}, "null_cond": {"label": np.zeros(2)}}
    conds[which] = {"label": entry}
    spec = SamplerSpec(steps_per_stage=(1, 1, 1), guidance_scale=2.0)
    message = rf"^{which}\['label'\] has shape .*allowed: a first axis of 2"
    with pytest.raises(ValueError, match=message):
        sample(network, pyramid, spec, jax.random.split(jax.random.key(0), 2), 1, **conds)
    with pytest.raises(ValueError, match=message):
        sample_from_noise(network, pyramid, spec, noises_of(pyramid), **conds)
    with pytest.raises(ValueError, match=message):
        guide = guided(network, 2.0, conds["null_cond"])
        positions = Positions(*[jnp.zeros(1)] * 3)
        guide(jnp.zeros((2, 1, 1, 1, 1)), jnp.zeros(2), positions, (1, 1, 1), conds["cond"])


def test_guidance_without_a_condition_is_refused_by_name():
    spec = SamplerSpec(steps_per_stage=(1, 1, 1), guidance_scale=2.0)
    with pytest.raises(ValueError, match=r"sample\.guidance_scale is 2\.0 but no condition"):
        sample(network, make(), spec, jax.random.split(jax.random.key(0), 2), 1,
               None, {"label": np.zeros(2)})  # fmt: skip


def test_missing_noises_are_refused_by_name():
    pyramid = make()
    with pytest.raises(ValueError, match=r"^noises has 2 entries; allowed: 3"):
        sample_from_noise(network, pyramid, SPEC, noises_of(pyramid)[:2])


def test_eps_with_zero_terminal_snr_is_told_every_way_out():
    with pytest.raises(ValueError, match=r"allowed: 'v', 'data', or 'eps' without zero"):
        DDIMPath(zero_terminal_snr=True, prediction="eps")


def test_velocity_is_turned_into_the_line_at_both_ends_of_time():
    """Nothing divides by t or by gamma: at t = 0 x_t is the data, at t = 1 the noise."""
    pyramid, x_t = make(), jnp.asarray(videos())
    line = output_to_line(pyramid, 2, x_t, 0.0, jnp.ones_like(x_t))
    np.testing.assert_array_equal(line.data, x_t)
    np.testing.assert_array_equal(line.noise, x_t + 1.0)
    line = output_to_line(pyramid, 0, x_t, 1.0, jnp.ones_like(x_t))
    np.testing.assert_array_equal(line.data, x_t - 1.0)
    np.testing.assert_array_equal(line.noise, x_t)
