"""A vanilla network sampled through a pyramid without training; a stagewise one refuses.

What is sampled is compared with the method's own sampler, given a pyramid that the test makes.
"""

import json
import logging
import pathlib
import unittest.mock
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np
import pytest
from absl import logging as absl_logging

from configs import captioned_digits_ddim, captioned_digits_wan
from tests.small_clips import clip_config, prepare_clips
from tests.tiny import set_field, tiny_config
from tpdiff_jax import main, method, train
from tpdiff_jax.command_line import parse
from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.generation.from_checkpoint import (
    GenerateFlags,
    OpenedRun,
    open_run,
    through_pyramid,
)
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.generation.published_run import write_published_run
from tpdiff_jax.generation.pyramid_text import pyramid_name, read_pyramid
from tpdiff_jax.generation.python_api import SamplingRun
from tpdiff_jax.generation.requested_videos import request_videos
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.models.published import PUBLISHED
from tpdiff_jax.types import Positions

SEED = 3
VANILLA = {
    **{"pyramid__frame_strides": (1,), "sample__num_steps": 6, "model__patch_size": 8},
    "pyramid__upsample": "nearest",  # as by default in `make_pyramid`
}


def random_params(experiment: Experiment) -> Any:
    """A fresh network answers 0; this one does not."""
    params = experiment.network.init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.05 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def opened(path: str = "flow", **fields: Any) -> OpenedRun:
    experiment = build_experiment(tiny_config(path, **{**VANILLA, **fields}))
    return OpenedRun(pathlib.Path("nowhere"), 1, experiment, random_params(experiment))


@pytest.fixture(scope="module")
def vanilla() -> OpenedRun:
    return opened()


def videos(run: OpenedRun, flags: SampleFlags | None = None) -> np.ndarray:
    asked = request_videos(run, flags or SampleFlags(), num_videos=2, seed=SEED)
    return np.concatenate([made for made, _ in asked.batches()])


def by_hand(run: OpenedRun, strides: Any, steps: Any, told: Any = None, **pyramid: Any) -> Any:
    """The method's own sampler on the run's network; `told` is what it hears of strides."""
    experiment = run.experiment
    task = experiment.task
    (frames, height, width, channels) = experiment.shapes[0].video_shape
    stages = method.make_pyramid(
        task.pyramid.path,
        shape=(frames, height, width),
        strides=strides,
        downsample=("stride", "mean", "mean"),
        time_shift=task.pyramid.time_shift,
        **pyramid,
    )
    requests = experiment.dataset.requests(2).cond
    scale = experiment.sampler.stage_scales[-1]
    spec = method.SamplerSpec(steps_per_stage=steps, guidance_scale=scale)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(SEED), np.arange(2))

    def predict(x_t: Any, t: Any, positions: Positions, given: Any, cond: Any) -> Any:
        return experiment.network.apply(run.params, x_t, t, positions, told or given, cond)

    return np.asarray(
        jax.jit(
            lambda keys, cond: method.sample(
                predict, stages, spec, keys, channels, cond, task.null_cond(cond)
            )
        )(keys, requests)
    )


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ("4,2,1", {"strides": (4, 2, 1)}),
        ("(4, 2, 1)", {"strides": (4, 2, 1)}),
        ("1", {"strides": (1,)}),
        ("((4,4,4),(2,2,2),(1,1,1))", {"strides": ((4, 4, 4), (2, 2, 2), (1, 1, 1))}),
        ([2, 1], {"strides": (2, 1)}),
        (1, {"strides": (1,)}),
        (np.array([4, 2, 1]), {"strides": (4, 2, 1)}),
        ("strides=4,2,1", {"strides": (4, 2, 1)}),
        (
            "strides=(4,2,1) upsample=linear stage_fractions=(.2,.3,.5)",
            {"strides": (4, 2, 1), "upsample": "linear", "stage_fractions": (0.2, 0.3, 0.5)},
        ),
        (
            "frame_strides = (2, 1), steps_per_stage=(3,3); time_shift=2.5",
            {"frame_strides": (2, 1), "steps_per_stage": (3, 3), "time_shift": 2.5},
        ),
        ({"strides": [4, 1], "grid_power": 1.5}, {"strides": (4, 1), "grid_power": (1.5,)}),
        ("strides=4,2,1 stage_fractions=auto", {"strides": (4, 2, 1), "stage_fractions": "auto"}),
    ],
)
def test_a_pyramid_is_read_from_strides_or_from_fields(asked: Any, fields: Any) -> None:
    assert read_pyramid(asked) == fields


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("strides=(4,2,1) strides=(2,1)", "strides is given twice"),
        ("4,2,1 upsample=linear", "'4,2,1' has no name"),
        ("strides=(4,2", "strides is no number, word or list"),
        ("strides=__import__('os')", "strides is no number, word or list"),
        ("strides=(4,2,1) frame_strides=(2,1)", "say the same"),
        ("line=stagewise", r"pyramid\.line says what the network was trained for"),
        ({"target_unit": "stage"}, r"pyramid\.target_unit says"),
        ("4,2,1 told_strides", "strides is no number, word or list"),
        ("strides=(2,1) told_strides=half", "told_strides is 'half'; allowed: 'full', 'stage'"),
    ],
)
def test_a_pyramid_that_cannot_be_read_is_refused(asked: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"--pyramid.*{message}"):
        read_pyramid(asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("4,3,1", r"--pyramid: pyramid\.strides"),
        ("16,1", r"--pyramid: .*pyramid\.strides"),
        ("strides=(4,2,1) upsample=cubic", r"--pyramid: pyramid\.upsample is 'cubic'"),
        ("strides=(4,2,1) stage_fractions=(.5,.5)", r"--pyramid: pyramid\.stage_fractions"),
        ("strides=(4,2,1) steps_per_stage=(3,3)", r"--pyramid: sample\.steps_per_stage"),
        ("strides=(4,2,1) grid_power=(1.5,1)", r"--pyramid: sample\.grid_power"),
        ("strids=(4,2,1)", r"--pyramid: unknown config field pyramid\.strids; did you mean"),
        ("upsample=3", r"--pyramid: pyramid\.upsample is 3"),
    ],
)
def test_a_pyramid_that_does_not_fit_is_refused(
    vanilla: OpenedRun, asked: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        through_pyramid(vanilla, asked)


def test_one_stage_is_plain_sampling_to_the_last_bit(vanilla: OpenedRun) -> None:
    plain = videos(vanilla)
    for asked in ("1", "frame_strides=(1,)", {"strides": (1,), "upsample": "linear"}):
        run = through_pyramid(vanilla, asked)
        np.testing.assert_array_equal(videos(run), plain)
        assert run.pyramid is not None and run.pyramid.cost()["flops_ratio"] == 1.0
    assert np.abs(plain).max() > 0.1


@pytest.mark.parametrize("path", ["flow", "ddim"])
def test_a_pyramid_is_sampled_as_the_method_does_with_frames_where_they_stand(path: str) -> None:
    """The network hears of strides what it was trained on; of frames, their true positions."""
    run = opened(path)
    made = through_pyramid(run, "strides=(4,2,1) upsample=linear stage_fractions=(.2,.3,.5)")
    fields = {"upsample": ("linear", "nearest", "nearest"), "stage_fractions": (0.2, 0.3, 0.5)}
    expected = by_hand(run, (4, 2, 1), (2, 2, 2), told=(1, 1, 1), **fields)
    np.testing.assert_allclose(videos(made), expected, atol=2e-5)
    stages = made.experiment.pyramid.stages
    assert [list(np.asarray(stage.positions.frames)) for stage in stages] == [
        [0, 4], [0, 2, 4, 6], list(range(8)),
    ]  # fmt: skip
    told = through_pyramid(run, "strides=(4,2,1) told_strides=stage")
    np.testing.assert_allclose(videos(told), by_hand(run, (4, 2, 1), (2, 2, 2)), atol=2e-5)
    assert np.abs(videos(told) - videos(made)).max() > 1e-3


def test_over_space_and_with_steps_of_its_own() -> None:
    run = opened(model__patch_size=4)
    strides = ((2, 2, 2), (1, 1, 1))
    made = through_pyramid(run, {"strides": strides, "steps_per_stage": (2, 3)})
    expected = by_hand(run, strides, (2, 3), told=(1, 1, 1))
    np.testing.assert_allclose(videos(made), expected, atol=2e-5)


def test_units_and_lists_of_one_stage_are_made_to_fit() -> None:
    """In one stage "stage" units and slices are those of time; in several they would not be."""
    run = opened(
        path__prediction="velocity", pyramid__target_unit="stage",
        pyramid__time_conditioning="stage_slices", sample__steps_per_stage=(9,),
        sample__guidance_per_stage=(2.0,), sample__grid_power=(1.5,), train__stage_probs=(1.0,),
    )  # fmt: skip
    experiment = through_pyramid(run, "4,2,1").experiment
    assert experiment.pyramid.target_unit == "time"
    assert experiment.pyramid.time_conditioning == "noise_time"
    assert experiment.sampler.steps_per_stage == (3, 3, 3)
    assert experiment.sampler.stage_scales == (2.0,) * 3
    assert experiment.sampler.stage_powers == (1.5,) * 3
    gridded = opened(sample__time_grids=((1.0, 0.5, 0.2, 0.0),))
    assert through_pyramid(gridded, "4,2,1").experiment.sampler.steps_per_stage == (1, 1, 1)


def test_noise_on_what_no_stage_before_has_made_is_no_hindrance(vanilla: OpenedRun) -> None:
    run = through_pyramid(opened(pyramid__coarse_noise=0.1), "4,2,1")
    assert run.experiment.pyramid.coarse_noise == 0.0
    np.testing.assert_array_equal(videos(run), videos(through_pyramid(vanilla, "4,2,1")))


def test_the_cost_is_that_of_the_stages_calls(vanilla: OpenedRun) -> None:
    """Two calls of each of three stages, against six of the full video."""
    made = through_pyramid(vanilla, "4,2,1").pyramid
    assert made is not None
    flops = vanilla.experiment.network.flops
    ratio = sum(flops((n, 32, 32)) for n in (2, 4, 8)) / (3 * flops((8, 32, 32)))
    cost = made.cost()
    assert (cost["calls"], cost["own_calls"]) == (6, 6)
    assert cost["flops_ratio"] == pytest.approx(ratio, rel=1e-12)
    assert 0.55 < ratio < 0.62  # 7/12 were it linear in frames alone


STAGEWISE = {"pyramid__frame_strides": (4, 2, 1)}


@pytest.mark.parametrize(
    "asked",
    ["1", "2,1", "8,4,2,1", "strides=(4,2,1) upsample=linear", "downsample=mean",
     "stage_fractions=(.5,.25,.25)", "frame_positions=naive"],
)  # fmt: skip
def test_a_network_trained_stage_by_stage_knows_its_own_stages_alone(asked: str) -> None:
    run = opened(**STAGEWISE)
    with pytest.raises(ValueError, match=r"--pyramid: pyramid\..* is another pyramid than the run"):
        through_pyramid(run, asked)


@pytest.mark.parametrize(
    "asked", ["4,2,1", "upsample=nearest", "time_shift=3.0", "steps_per_stage=(1,2,3)",
              "stage_fractions=(1,1,1)", "grid_power=(1,1.5,1.5)"],
)  # fmt: skip
def test_what_leaves_its_stages_as_they_are_is_allowed(asked: str) -> None:
    run = through_pyramid(opened(**STAGEWISE), asked)
    assert [stage.num_frames for stage in run.experiment.pyramid.stages] == [2, 4, 8]


@pytest.mark.parametrize("line", ["stagewise", "marginal"])
def test_windows_stay_those_of_all_buckets_where_one_is_shown(line: str) -> None:
    """Linear upsampling has a larger L the longer a clip: the long bucket decides the starts."""
    config = tiny_config(**VANILLA | STAGEWISE, pyramid__line=line)
    config.pyramid.upsample = "linear"
    buckets = {"8": MovingDigitsSpec(num_frames=8), "32": MovingDigitsSpec(num_frames=32)}
    whole = build_experiment(config, clips=buckets)
    alone = build_experiment(config, clips={"8": buckets["8"]})
    trained, shorter = (windows(one) for one in (whole, alone))
    assert trained != shorter
    for bucket in buckets:
        run = OpenedRun(pathlib.Path("nowhere"), 1, whole.of_bucket(bucket), {})
        made = through_pyramid(run, "steps_per_stage=(2,2,2)").experiment
        assert windows(made) == trained
        assert [clips.bucket for clips in made.shapes] == [bucket]
        if line == "marginal":  # a pyramid of its own need not fit the other bucket
            strides = {"8": "8,1", "32": "32,1"}[bucket]
            assert through_pyramid(run, strides).experiment.pyramid.num_frames == int(bucket)


def windows(experiment: Experiment) -> list[tuple[float, float]]:
    return [(stage.t_start, stage.t_end) for stage in experiment.pyramid.stages]


def test_a_marginal_run_takes_any_pyramid_and_says_what_was_not_trained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The full rate is trained up to t = 0.4142: one stage begins at 1; stride 8 is new."""
    absl_logging.use_absl_handler()
    run = opened(**STAGEWISE, pyramid__line="marginal")
    with caplog.at_level(logging.WARNING, logger="absl"):
        through_pyramid(run, "strides=(4,2,1) upsample=linear stage_fractions=(.2,.3,.5)")
        through_pyramid(run, "1")
        through_pyramid(run, "8,4,2,1")
    said = [record.getMessage() for record in caplog.records]
    full = "strides (1, 1, 1) run from noise time {}, trained were 0.414 to 0.000"
    assert any(full.format("1.000 to 0.000") in line for line in said)
    assert any("strides (8, 1, 1) were not trained" in line for line in said)
    caplog.clear()
    same = through_pyramid(run, "upsample=insert data_mean=-0.9")
    assert not caplog.records, "starts are earlier than those that were trained"
    assert same.experiment.pyramid.stages[1].t_start == pytest.approx(2 / 3)


@pytest.mark.parametrize("field", [{"time_conditioning": "stage_slices"}, {"target_unit": "stage"}])
def test_a_marginal_run_whose_units_are_its_stages_is_refused(field: Any) -> None:
    name, value = next(iter(field.items()))
    run = opened(
        **STAGEWISE, pyramid__line="marginal", path__prediction="velocity",
        **{f"pyramid__{name}": value},
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"--pyramid: .* pyramid\.{name}='{value}'"):
        through_pyramid(run, "2,1")


def test_weights_that_say_what_they_were_trained_with_are_believed(tmp_path: pathlib.Path) -> None:
    run = opened(**STAGEWISE)
    network, config = run.experiment.network, run.experiment.config
    PUBLISHED["video_dit"].save(
        tmp_path, run.params, network.config, PUBLISHED["video_dit"].layouts[0], "float32", None
    )
    for strides, refusal in (((4, 2, 1), "stage by stage"), ((1,), "")):
        config.pyramid.frame_strides = strides
        write_published_run(tmp_path, pathlib.Path("nowhere"), config, 7)
        asked = tiny_config(**VANILLA, model__weights=str(tmp_path))
        expected = pytest.raises(ValueError, match=refusal) if refusal else nullcontext()
        with expected:
            flags = GenerateFlags(pyramid="2,1")
            made = open_run(tmp_path / "none", config=asked, overrides=flags)
            assert made.experiment.pyramid.num_stages == 2


@pytest.mark.parametrize(
    ("strides", "fields", "name"),
    [
        (((4, 1, 1), (2, 1, 1), (1, 1, 1)), {"strides": (4, 2, 1)}, "4-2-1"),
        (((2, 2, 2), (1, 1, 1)), {"strides": ()}, "2x2x2-1x1x1"),
        (
            ((2, 1, 1), (1, 1, 1)),
            {"upsample": "linear", "stage_fractions": (0.25, 0.75), "steps_per_stage": (3, 4)},
            "2-1_stage_fractions-0.25-0.75_steps_per_stage-3-4_upsample-linear",
        ),
    ],
)
def test_names_say_what_was_asked_for(strides: Any, fields: Any, name: str) -> None:
    assert pyramid_name(strides, fields) == name
    turned = dict(reversed(fields.items()))
    assert pyramid_name(strides, turned) == name


def command(mode: str, *flags: str) -> None:
    with unittest.mock.patch.object(main, "set_up_jax"):  # jax has long started
        assert main.run_mode(parse(["tpdiff_jax", f"--mode={mode}", *flags])) == 0


def test_the_commands_keep_videos_and_figures_apart(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.train(build_experiment(tiny_config(**VANILLA, train__num_steps=1)), tmp_path)
    workdir, through = f"--workdir={tmp_path}", "--pyramid=4,2,1"
    command("evaluate", workdir)
    before = (tmp_path / "evaluation_00000001.json").read_bytes()
    command("sample", workdir)
    command("sample", workdir, through)
    command("evaluate", workdir, through, "--steps_per_stage=3,2,1", "--guidance_scale=4,2,1")
    shown = capsys.readouterr().out
    assert "pyramid 4-2-1: 2 videos in " in shown
    assert "6 network calls, 0.5" in shown
    folders = {p.name for p in (tmp_path / "samples").iterdir() if p.is_dir()}
    assert folders == {"step_00000001_seed_0", "step_00000001_seed_0_pyramid_4-2-1"}
    assert (tmp_path / "evaluation_00000001.json").read_bytes() == before
    (file,) = tmp_path.glob("evaluation_*_pyramid_*.json")
    results = json.loads(file.read_text())
    assert (results["pyramid"]["calls"], results["pyramid"]["own_calls"]) == (6, 6)
    assert results["pyramid"]["fields"]["steps_per_stage"] == [3, 2, 1]
    assert [stage["steps"] for stage in results["stages"]] == [3, 2, 1]
    assert results["pyramid"]["flops_ratio"] < 0.5
    assert "label_accuracy" in results["metrics"]
    with pytest.raises(ValueError, match="--pyramid gives steps_per_stage, and a flag"):
        command(
            "sample", workdir, "--pyramid=strides=(2,1) steps_per_stage=(1,1)",
            "--steps_per_stage=1,1",
        )  # fmt: skip
    # ---- the same from Python
    run = SamplingRun(open_run(tmp_path))
    opened_so = SamplingRun(open_run(tmp_path, overrides=GenerateFlags(pyramid="4,2,1")))
    expected = opened_so.sample(labels=[3], seed=1)
    np.testing.assert_array_equal(run.sample(labels=[3], seed=1, pyramid=(4, 2, 1)), expected)
    assert (run.sample(labels=[3], seed=1) != expected).any()


# ---- published weights: nothing is trained, there is no run at all


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return prepare_clips(tmp_path_factory.mktemp("clips"), "latents")


PUBLISHED_FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "flux": (None, {}),
    "wan": (
        captioned_digits_wan,
        {"num_heads": 1, "head_dim": 12, "depth": 1, "feed_forward_dim": 16, "patch_size": 2,
         "text_dim": 8, "num_text_tokens": 3},
    ),
    "animatediff": (
        captioned_digits_ddim,
        {"level_channels": (8,), "level_depth": 1, "num_heads": 2, "num_groups": 4, "text_dim": 8,
         "num_text_tokens": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED_FORMS)
def test_published_weights_are_sampled_through_a_pyramid_without_training(
    name: str, clips: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The config's own pyramid does not matter: the weights are of one stage."""
    module, model = PUBLISHED_FORMS[name]
    config = clip_config(clips, "latents", sample__num_steps=4)
    if module is not None:
        other = module.get_config()
        with config.unlocked():
            config.model, config.path = other.model, other.path
        for field, value in model.items():
            set_field(config, f"model.{field}", value)
    config.pyramid.frame_strides = (4, 2, 1)
    experiment = build_experiment(config)
    assert experiment.config.model.name == name
    params = random_params(experiment)
    save = PUBLISHED[name]
    save.save(tmp_path / "weights", params, experiment.network.config, save.layouts[0], "float32",
              None)  # fmt: skip
    config.model.weights = str(tmp_path / "weights")
    asked = {"strides": (2, 1), "upsample": "linear"}
    run = open_run(tmp_path / "run", config=config, overrides=GenerateFlags(pyramid=asked))
    assert run.step == 0 and run.pyramid is not None
    assert run.pyramid.own.pyramid.num_stages == 1
    assert not (tmp_path / "run").exists(), "nothing was trained or written"
    jax.tree.map(np.testing.assert_array_equal, run.params, params)
    if name == "animatediff":  # its U-Net compiles for long; its stages are traced
        (made,) = jax.tree.leaves(Sampler(run.experiment).trace(2).out_info)
        assert made.shape == (2, *run.experiment.shapes[0].video_shape)
        return
    linear = ("linear", "nearest", "nearest")
    expected = by_hand(run, (2, 1), (2, 2), upsample=linear)
    np.testing.assert_allclose(videos(run), expected, atol=1e-4 * np.abs(expected).max())
    assert videos(through_pyramid(run, "1")).shape == expected.shape
