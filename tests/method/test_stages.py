"""Stages: windows, frame counts and positions against the paper's numbers and closed forms."""

import dataclasses
import math
import re

import numpy as np
import pytest

from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.stages import make_pyramid

PATHS = [
    FlowPath(),
    DDIMPath(),
    DDIMPath(betas="linear"),
    DDIMPath(zero_terminal_snr=True),
    DDIMPath(final_alpha="first", prediction="eps"),
]
SHAPES = [
    ((4, 2, 1), 16),
    ((8, 4, 2, 1), 16),
    ((8, 2, 1), 16),
    ((8, 4, 1), 16),
    ((4, 2, 1), 21),
    ((8, 2, 1), 17),
    ((1,), 16),
]
UPSAMPLES = ["nearest", "nearest_next", "linear"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("frame_strides", "num_frames"), SHAPES)
@pytest.mark.parametrize("upsample", ["nearest", "linear"])
@pytest.mark.parametrize("downsample", ["stride", "mean"])
def test_each_stage_starts_at_root_l_times_the_ratio_the_last_ended_at(
    path, frame_strides, num_frames, upsample, downsample
):
    pyramid = make_pyramid(
        path,
        shape=(num_frames, 1, 1),
        strides=frame_strides,
        downsample=downsample,
        upsample=upsample,
    )
    assert pyramid.stages[0].t_start == 1.0 and pyramid.stages[-1].t_end == 0.0
    for previous, stage in zip(pyramid.stages[:-1], pyramid.stages[1:], strict=True):
        eigenvalue = np.linalg.norm(stage.jump.upsample.matrices[0], ord=2) ** 2
        expected = math.sqrt(eigenvalue) * previous.nu_end
        assert stage.nu_start == pytest.approx(expected, rel=1e-9)
        assert stage.t_start > previous.t_end > stage.t_end
        assert stage.jump.scale == pytest.approx(stage.gamma_start / previous.gamma_end, rel=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_stage_numbers_are_the_path_at_the_window_ends(path):
    for stage in make_pyramid(path, shape=(16, 1, 1)).stages:
        for end in ("start", "end"):
            t = getattr(stage, f"t_{end}")
            got = [getattr(stage, f"{name}_{end}") for name in ("gamma", "sigma")]
            np.testing.assert_allclose(got, [path.gamma(t), path.sigma(t)], atol=2e-6)
            ratio = got[1] / got[0] if got[0] else math.inf
            assert getattr(stage, f"nu_{end}") == pytest.approx(ratio, rel=1e-12)


def test_flow_windows_are_those_worked_out_by_hand():
    # s = sqrt(2) e / (1 - e + sqrt(2) e)
    pyramid = make_pyramid(FlowPath(), shape=(16, 1, 1))
    windows = [(stage.t_start, stage.t_end) for stage in pyramid.stages]
    expected = [(1.0, 2 / 3), (0.7388, 1 / 3), (0.4142, 0.0)]
    np.testing.assert_allclose(windows, expected, atol=5e-5)
    assert pyramid.stages[1].jump.scale == pytest.approx(0.784, abs=5e-4)


def test_windows_of_an_overlap_are_those_worked_out_by_hand():
    # L' = 2 x 2: twice the ratio, so s = 2 e / (1 + e).
    pyramid = make_pyramid(FlowPath(), shape=(16, 1, 1), overlap=2.0)
    windows = [(stage.t_start, stage.t_end) for stage in pyramid.stages]
    np.testing.assert_allclose(windows, [(1, 2 / 3), (0.8, 1 / 3), (0.5, 0)], rtol=1e-12)
    assert [stage.jump.eigenvalue for stage in pyramid.stages[1:]] == [4.0, 4.0]
    # Of the pair's difference all noise is fresh, of its mean half.
    half = math.sqrt(0.5)
    expected = np.array([[1 + half, half - 1], [half - 1, 1 + half]]) / 2
    factor = pyramid.stages[1].jump.noise_factor.matrices[0][:2, :2]
    np.testing.assert_allclose(factor, expected, atol=1e-14)


def test_lengths_that_share_a_network_share_an_overlap_too():
    options = {"upsample": "linear", "overlap": 1.5}
    starts = [
        make_pyramid(FlowPath(), shape=(one, 1, 1), other_shapes=((other, 1, 1),), **options)
        for one, other in ((8, 24), (24, 8))
    ]
    windows = [[stage.t_start for stage in pyramid.stages] for pyramid in starts]
    assert windows[0] == windows[1]


@pytest.mark.parametrize("path", [DDIMPath(), DDIMPath(betas="linear", prediction="eps")])
def test_an_overlap_that_asks_for_more_noise_than_the_path_has_is_refused(path):
    with pytest.raises(ValueError, match=r"pyramid\.stage_fractions.*no noise.*overlap") as error:
        make_pyramid(path, shape=(16, 1, 1), overlap=100.0)
    end = float(str(error.value).split()[-1]) - 1e-4
    fractions = (1 - end, end / 2, end / 2)
    assert make_pyramid(path, shape=(16, 1, 1), overlap=100.0, stage_fractions=fractions)
    assert make_pyramid(FlowPath(), shape=(16, 1, 1), overlap=100.0).stages[1].t_start < 1.0


def test_one_stage_is_the_whole_path():
    for path in PATHS:
        pyramid = make_pyramid(path, shape=(16, 1, 1), strides=(1,))
        (stage,) = pyramid.stages
        assert (stage.t_start, stage.t_end, stage.jump) == (1.0, 0.0, None)
        assert (pyramid.num_stages, pyramid.num_frames) == (1, 16)
        np.testing.assert_array_equal(stage.downsample.matrices[0], np.eye(16))


@pytest.mark.parametrize(
    ("strides", "num_frames", "counts"),
    [
        ((4, 2, 1), 16, [4, 8, 16]),
        ((8, 4, 2, 1), 16, [2, 4, 8, 16]),
        ((8, 2, 1), 16, [2, 8, 16]),
        ((8, 4, 1), 16, [2, 4, 16]),
        ((4, 2, 1), 21, [6, 11, 21]),
        ((1,), 7, [7]),
    ],
)
@pytest.mark.parametrize("upsample", UPSAMPLES)
def test_frame_counts(strides, num_frames, counts, upsample):
    pyramid = make_pyramid(FlowPath(), shape=(num_frames, 1, 1), strides=strides, upsample=upsample)
    assert [stage.num_frames for stage in pyramid.stages] == counts
    assert [len(stage.positions.frames) for stage in pyramid.stages] == counts
    assert [stage.strides for stage in pyramid.stages] == [(r, 1, 1) for r in strides]


@pytest.mark.parametrize(
    ("fractions", "ends"),
    [
        ((), [2 / 3, 1 / 3, 0]),
        ((1, 1, 1), [2 / 3, 1 / 3, 0]),
        ((2, 1, 1), [0.5, 0.25, 0]),
        ((0.1, 0.1, 0.2), [0.75, 0.5, 0]),
    ],
)
def test_window_ends_cut_the_unit_interval_in_proportion(fractions, ends):
    pyramid = make_pyramid(FlowPath(), shape=(16, 1, 1), stage_fractions=fractions)
    np.testing.assert_allclose([stage.t_end for stage in pyramid.stages], ends, atol=1e-15)


@pytest.mark.parametrize(("factor", "limit"), [(2, 0.940), (4, 0.875), (8, 0.803)])
def test_scaled_linear_betas_bound_the_first_window_end(factor, limit):
    def make(end):
        return make_pyramid(
            DDIMPath(), shape=(16, 1, 1), strides=(factor, 1), stage_fractions=(1 - end, end)
        )

    assert make(limit - 0.001).stages[1].t_start <= 1.0
    with pytest.raises(ValueError, match=r"pyramid\.stage_fractions") as error:
        make(limit + 0.001)
    allowed = float(str(error.value).split()[-1])
    assert allowed == pytest.approx(limit, abs=6e-4)


def test_zero_terminal_snr_has_no_such_bound():
    path = DDIMPath(zero_terminal_snr=True)
    pyramid = make_pyramid(path, shape=(16, 1, 1), stage_fractions=(0.01, 0.5, 0.49))
    assert pyramid.stages[0].nu_start == math.inf
    assert pyramid.stages[1].t_start < 1.0


@pytest.mark.parametrize(
    ("num_frames", "downsample", "positions"),
    [
        (8, "stride", [[0, 4], [0, 2, 4, 6], range(8)]),
        (8, "mean", [[1.5, 5.5], [0.5, 2.5, 4.5, 6.5], range(8)]),
        (9, "stride", [[0, 4, 8], [0, 2, 4, 6, 8], range(9)]),
        (9, "mean", [[1.5, 5.5, 8], [0.5, 2.5, 4.5, 6.5, 8], range(9)]),
    ],
)
def test_consistent_positions_are_d_applied_to_the_frame_numbers(num_frames, downsample, positions):
    pyramid = make_pyramid(FlowPath(), shape=(num_frames, 1, 1), downsample=downsample)
    for stage, expected in zip(pyramid.stages, positions, strict=True):
        assert stage.positions.frames.dtype == np.float32
        np.testing.assert_array_equal(stage.positions.frames, list(expected))


def test_naive_positions_count_each_stages_frames():
    pyramid = make_pyramid(FlowPath(), shape=(8, 1, 1), frame_positions="naive")
    for stage in pyramid.stages:
        np.testing.assert_array_equal(stage.positions.frames, np.arange(stage.num_frames))


@pytest.mark.parametrize("path", PATHS)
def test_noise_time_conditioning_tells_the_time_itself(path):
    pyramid = make_pyramid(path, shape=(16, 1, 1))
    for index, stage in enumerate(pyramid.stages):
        for t in (stage.t_start, stage.t_end):
            np.testing.assert_allclose(pyramid.network_time(index, t), path.network_time(t))


@pytest.mark.parametrize("path", PATHS)
def test_stage_slices_give_each_stage_its_own_times(path):
    pyramid = make_pyramid(path, shape=(16, 1, 1), time_conditioning="stage_slices")
    upper = 1.0
    for index, stage in enumerate(pyramid.stages):
        middle = (stage.t_start + stage.t_end) / 2
        times = np.float32([stage.t_end, middle, stage.t_start])
        expected = path.network_time(np.float32([stage.t_end, (stage.t_end + upper) / 2, upper]))
        np.testing.assert_allclose(pyramid.network_time(index, times), expected, atol=1e-3)
        upper = stage.t_end


@pytest.mark.parametrize("conditioning", ["noise_time", "stage_slices"])
def test_time_conditioning_changes_nothing_for_one_stage(conditioning):
    t = np.linspace(0, 1, 7, dtype=np.float32)
    for path in PATHS:
        pyramid = make_pyramid(path, shape=(16, 1, 1), strides=(1,), time_conditioning=conditioning)
        np.testing.assert_array_equal(pyramid.network_time(0, t), path.network_time(t))


def test_lengths_that_share_a_network_share_their_windows():
    lengths = (8, 16, 24)
    windows = []
    for length in lengths:
        others = tuple((other, 1, 1) for other in lengths if other != length)
        pyramid = make_pyramid(
            FlowPath(), shape=(length, 1, 1), upsample="linear", other_shapes=others
        )
        windows.append([(stage.t_start, stage.t_end) for stage in pyramid.stages])
        for stage in pyramid.stages[1:]:
            up, factor = stage.jump.upsample.matrices[0], stage.jump.noise_factor.matrices[0]
            covariance = up @ up.T / stage.jump.eigenvalue + factor @ factor
            np.testing.assert_allclose(covariance, np.eye(stage.num_frames), atol=1e-13)
    np.testing.assert_array_equal(windows[0], windows[1])
    np.testing.assert_array_equal(windows[0], windows[2])


def test_pyramids_are_frozen_and_usable_as_static_arguments():
    pyramid = make_pyramid(FlowPath(), shape=(16, 1, 1))
    assert hash(pyramid) == hash(pyramid)
    with pytest.raises(dataclasses.FrozenInstanceError):
        pyramid.target_unit = "stage"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"shape": (18, 1, 1)}, "data.num_frames"),
        ({"other_shapes": ((18, 1, 1),)}, "data.num_frames"),
        ({"strides": (4, 3, 1)}, "pyramid.strides"),
        ({"stage_fractions": (1.0, 1.0)}, "pyramid.stage_fractions"),
        ({"stage_fractions": (1.0, 0.0, 1.0)}, "pyramid.stage_fractions"),
        ({"stage_fractions": (1.0, math.nan, 1.0)}, "pyramid.stage_fractions"),
        ({"stage_fractions": (1.0, math.inf, 1.0)}, "pyramid.stage_fractions"),
        ({"downsample": "max"}, "pyramid.downsample"),
        ({"upsample": "cubic"}, "pyramid.upsample"),
        ({"upsample": "dct"}, "pyramid.upsample is 'dct' with pyramid.downsample 'stride'"),
        ({"downsample": "dct"}, "pyramid.upsample is 'nearest' with pyramid.downsample 'dct'"),
        ({"downsample": "dct", "upsample": "linear", "strides": (1,)}, "pyramid.upsample is"),
        (
            {"downsample": ("stride", "dct", "mean"), "upsample": "linear"},
            "pyramid.upsample_space is 'linear' with pyramid.downsample_space 'dct'",
        ),
        ({"overlap": 0.99}, "pyramid.overlap is 0.99; allowed: [1, inf)"),
        ({"overlap": 0}, "pyramid.overlap"),
        ({"overlap": math.nan}, "pyramid.overlap"),
        ({"overlap": math.inf}, "pyramid.overlap"),
        ({"overlap": "2"}, "pyramid.overlap"),
        ({"overlap": 0.5, "strides": (1,)}, "pyramid.overlap"),
        ({"upsample": "insert", "downsample": "mean"}, "pyramid.upsample is 'insert' with"),
        ({"upsample": "insert", "downsample": "dct"}, "pyramid.upsample is"),
        ({"upsample": ("linear", "insert", "linear")}, "pyramid.upsample_space is 'insert'"),
        ({"data_mean": math.nan}, "pyramid.data_mean is nan; allowed: a number, or one for each"),
        ({"data_mean": (0.0, math.inf)}, "pyramid.data_mean"),
        ({"data_mean": ()}, "pyramid.data_mean"),
        ({"data_mean": "0.5"}, "pyramid.data_mean"),
        ({"data_mean": (0.5, "half")}, "pyramid.data_mean"),
        ({"coarse_noise": -0.1}, "pyramid.coarse_noise is -0.1; allowed: [0, inf)"),
        ({"coarse_noise": math.nan}, "pyramid.coarse_noise"),
        ({"coarse_noise": math.inf, "strides": (1,)}, "pyramid.coarse_noise"),
        ({"coarse_noise": 0.1, "line": "marginal"}, "pyramid.coarse_noise is 0.1 with"),
        ({"line": "straight"}, "pyramid.line is 'straight'; allowed: 'stagewise', 'marginal'"),
        ({"frame_positions": "learned"}, "pyramid.frame_positions"),
        ({"target_unit": "second"}, "pyramid.target_unit"),
        ({"time_conditioning": "none"}, "pyramid.time_conditioning"),
    ],
)
def test_refuses_by_field_name(changes, field):
    with pytest.raises(ValueError, match=re.escape(field)):
        make_pyramid(FlowPath(), **{"shape": (16, 1, 1), **changes})


def test_stage_unit_of_velocity_needs_a_path_with_velocities():
    with pytest.raises(ValueError, match=r"pyramid\.target_unit"):
        make_pyramid(DDIMPath(), shape=(16, 1, 1), target_unit="stage")
    with pytest.raises(ValueError, match=r"pyramid\.target_unit"):
        make_pyramid(FlowPath(prediction="data"), shape=(16, 1, 1), target_unit="stage")


def test_an_unknown_upsampling_is_refused_even_if_no_stage_would_use_it():
    with pytest.raises(ValueError, match=r"pyramid\.upsample"):
        make_pyramid(FlowPath(), shape=(16, 1, 1), strides=(1,), upsample="cubic")


SPACE = ((1, 4, 4), (1, 2, 2), (1, 1, 1))


def test_pyramid_flows_start_points_come_out():
    """Spatial halvings, L = 4: stages that follow ends 2/3 and 1/3 start at 0.2 and 0.5 clean."""
    pyramid = make_pyramid(FlowPath(), shape=(1, 8, 8), strides=SPACE)
    assert [stage.jump.eigenvalue for stage in pyramid.stages[1:]] == pytest.approx([4.0, 4.0])
    clean = [stage.gamma_start for stage in pyramid.stages]
    np.testing.assert_allclose(clean, [0.0, 0.2, 0.5], atol=1e-12)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_spatial_expansion_goes_from_t_to_2t_over_1_plus_t(t):
    """Spectral Progressive Diffusion (arXiv 2605.18736): twice the noise-to-signal ratio."""
    options = {"shape": (1, 4, 4), "strides": ((1, 2, 2), (1, 1, 1))}
    pyramid = make_pyramid(FlowPath(), stage_fractions=(1.0 - t, t), **options)
    assert pyramid.stages[1].t_start == pytest.approx(2 * t / (1 + t), rel=1e-12)


def test_stages_over_time_and_space_have_their_shapes_and_positions():
    strides = ((4, 4, 2), (2, 2, 2), (1, 1, 1))
    down = ("stride", "mean", "mean")
    pyramid = make_pyramid(FlowPath(), shape=(9, 8, 4), strides=strides, downsample=down)
    assert [stage.shape for stage in pyramid.stages] == [(3, 2, 2), (5, 4, 2), (9, 8, 4)]
    assert pyramid.shape == (9, 8, 4)
    coarse, middle, full = (stage.positions for stage in pyramid.stages)
    np.testing.assert_array_equal(coarse.frames, [0, 4, 8])
    np.testing.assert_array_equal(coarse.rows, [1.5, 5.5])
    np.testing.assert_array_equal(coarse.columns, [0.5, 2.5])
    np.testing.assert_array_equal(middle.rows, [0.5, 2.5, 4.5, 6.5])
    np.testing.assert_array_equal(middle.columns, coarse.columns)
    for axis, length in zip(full, pyramid.shape, strict=True):
        np.testing.assert_array_equal(axis, np.arange(length))
        assert axis.dtype == np.float32


def test_dct_stages_stand_at_block_centres_and_causal_ones_at_even_places():
    pyramid = make_pyramid(FlowPath(), shape=(8, 1, 1), downsample="dct", upsample="dct")
    coarse, middle, full = (stage.positions.frames for stage in pyramid.stages)
    np.testing.assert_allclose(coarse, [1.5, 5.5], atol=1e-6)
    np.testing.assert_allclose(middle, [0.5, 2.5, 4.5, 6.5], atol=1e-6)
    np.testing.assert_array_equal(full, np.arange(8))
    causal = make_pyramid(FlowPath(), shape=(9, 1, 1), downsample="dct", upsample="dct")
    np.testing.assert_allclose(causal.stages[0].positions.frames, [1, 4, 7], atol=1e-6)
    assert causal.stages[0].positions.frames.dtype == np.float32
    windows = [stage.jump.eigenvalue for stage in causal.stages[1:]]
    np.testing.assert_allclose(windows, [5 / 3, 9 / 5], rtol=1e-12)


def test_naive_positions_count_every_axis_anew():
    pyramid = make_pyramid(FlowPath(), shape=(2, 8, 4), strides=SPACE, frame_positions="naive")
    for stage in pyramid.stages:
        for axis, length in zip(stage.positions, stage.shape, strict=True):
            np.testing.assert_array_equal(axis, np.arange(length))


def test_shapes_that_share_a_network_share_the_largest_eigenvalue_of_all_axes():
    shapes = [(4, 4, 8), (8, 8, 4), (5, 4, 4)]
    windows = []
    for shape in shapes:
        others = [other for other in shapes if other != shape]
        pyramid = make_pyramid(
            FlowPath(), shape=shape, strides=((2, 2, 2), 1), upsample="linear", other_shapes=others
        )
        alone = [
            make_pyramid(FlowPath(), shape=one, strides=((2, 2, 2), 1), upsample="linear")
            for one in shapes
        ]
        largest = max(one.stages[1].jump.eigenvalue for one in alone)
        assert pyramid.stages[1].jump.eigenvalue == largest
        windows.append(pyramid.stages[1].t_start)
    assert len(set(windows)) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"shape": (4, 6, 8)}, "height"),
        ({"shape": (4, 8, 9)}, "width"),
        ({"other_shapes": ((4, 9, 8),)}, "height"),
        ({"upsample": "nearest_next"}, "pyramid.upsample_space"),
        ({"upsample": "insert"}, "pyramid.upsample_space"),
        ({"downsample": ("stride", "max", "mean")}, "pyramid.downsample_space"),
        ({"strides": ((1, 4, 4), (1, 3, 3), (1, 1, 1))}, "pyramid.strides"),
    ],
)
def test_refuses_what_does_not_fit_in_space_by_name(changes, field):
    with pytest.raises(ValueError, match=field.replace(".", r"\.")):
        make_pyramid(FlowPath(), **{"shape": (4, 8, 8), "strides": SPACE, **changes})


@pytest.mark.parametrize("strides, fractions, empty", [
    ((2, 1), (0.9995, 0.0005), 1), ((2, 1), (0.999, 0.001), 1),
    ((4, 2, 1), (0.999, 0.0005, 0.0005), 1), ((4, 2, 1), (0.9985, 0.001, 0.0005), 2),
])  # fmt: skip
def test_a_window_in_which_the_path_stands_still_is_refused(strides, fractions, empty):
    """Below its first grid point, 0.001, with nothing that the jump makes noisier."""
    path = DDIMPath(final_alpha="first")
    fields = {"shape": (8, 1, 1), "strides": strides, "upsample": "insert"}
    message = rf"pyramid\.stage_fractions gives stage {empty} an empty window.*share of stage"
    with pytest.raises(ValueError, match=message):
        make_pyramid(path, **fields, stage_fractions=fractions)
    make_pyramid(path, **fields | {"upsample": "linear"}, stage_fractions=fractions)
    make_pyramid(DDIMPath(), **fields, stage_fractions=fractions)
