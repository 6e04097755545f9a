"""--mode=advise as a user runs it, and windows that are left to the clips."""

import dataclasses
import json
import pathlib
import re
import shlex
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.report.report_files import PAPER
from tests.small_clips import KINDS, clip_config, prepare_clips
from tests.tiny import REPO, tiny_config
from tpdiff_jax import advise as advising
from tpdiff_jax.advice import advice_text, choice
from tpdiff_jax.advice.exact_law import GaussianVideos
from tpdiff_jax.command_line import parse
from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.devices import processes
from tpdiff_jax.experiment import measured_clips, window_choice
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.experiment.window_choice import with_saved_windows
from tpdiff_jax.generation.from_checkpoint import open_run
from tpdiff_jax.main import main, run_mode, run_train
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.sampler_spec import SamplerSpec
from tpdiff_jax.method.stages import make_pyramid
from tpdiff_jax.models.video_dit.network import VideoDiT
from tpdiff_jax.report import advice_page
from tpdiff_jax.report.pages import Fact
from tpdiff_jax.run_folder.run_config import check_same_run, load_config
from tpdiff_jax.training.training_folder import keep_config

KEYS = {
    *("data", "detail_shares", "bands", "inputs", "useful_strides", "vanilla", "configured"),
    *("recommended", "pays", "verdict", "candidates", "versions", "config"),
}


@pytest.fixture(autouse=True)
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that is read in a second."""
    monkeypatch.setattr(measured_clips, "MOST_CLIPS", 32)


def config_of(**overrides: Any) -> ConfigDict:
    return tiny_config(sample__num_steps=12, **overrides)


def auto_config(**overrides: Any) -> ConfigDict:
    config = config_of(**overrides)
    with config.ignore_type():
        config.pyramid.stage_fractions = "auto"
    return config


def advice_of(config: ConfigDict, **flags: float) -> dict[str, Any]:
    return advising.advise(config, None, advising.AdviceFlags(**flags))


def test_slow_digits_get_a_pyramid_and_fast_ones_no_advice(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = advising.AdviceFlags()
    slow = advising.advise(config_of(data__speed_stratum="slow"), tmp_path, flags)
    out = capsys.readouterr().out
    assert slow["pays"] and slow["recommended"]["frame_strides"] == [2, 1]
    assert "pays here" in out and slow["recommended"]["overrides"] in out
    assert json.loads((tmp_path / "advise.json").read_text()).keys() >= KEYS
    page = (tmp_path / "advise.html").read_text()
    assert "<script" not in page and "http" not in page.replace(PAPER, "")
    assert "noise where strides 2 to 1 jump" in page and page.count("<svg") == 1
    for row in slow["candidates"]:
        assert sum(row["steps_per_stage"]) == 12 and 0 < row["sampling_cost"] < 1
    fast = advice_of(config_of(data__speed_stratum="fast"))
    assert not fast["pays"] and fast["useful_strides"] == [] and fast["recommended"] is None
    out = capsys.readouterr().out
    assert "speaks for no pyramid" in out and "--config" not in out, "none is recommended"


def test_what_it_recommends_is_a_command_that_builds() -> None:
    best = advice_of(config_of(data__speed_stratum="slow"))["recommended"]
    words = best["overrides"].replace('"', "").replace(", ", ",").split()
    command = parse(["main", "--workdir=w", "--config=flow", *words])
    pyramid = build_experiment(command.values["config"]).pyramid
    assert [stage.strides[0] for stage in pyramid.stages] == best["frame_strides"]
    assert pyramid.stages[1].nu_start == pytest.approx(best["jumps"][0]["noise"])


GRIDS = ((1.0, 0.99, 0.98, 0.97, 2 / 3), (0.7387961, 0.73, 0.72, 0.71, 1 / 3),
         (0.4142136, 0.41, 0.405, 0.40, 0.0))  # fmt: skip
"""Noise times of the stages of 4, 2, 1 by copies: most calls are at nearly the same time."""


@pytest.mark.parametrize(
    "lines, wanted",
    [
        (["config.sample.grid_power = (1.0, 1.0, 2.0)"], {"grid_power": (1.0,)}),
        (["config.sample.grid_power = (2.0, 2.0, 2.0)"], {"grid_power": (2.0,)}),
        ([f"config.sample.time_grids = {GRIDS}", "config.pyramid.upsample = 'nearest'"],
         {"time_grids": ()}),
        (["config.train.stage_probs = (0.8, 0.1, 0.1)"], {"grid_power": (1.0,)}),
    ],
)  # fmt: skip
def test_entries_of_other_stages_are_reset(
    tmp_path: pathlib.Path, lines: list[str], wanted: dict[str, Any]
) -> None:
    sizes = ["config.data.speed_stratum = 'slow'", "config.data.num_frames = 8"]
    sizes += ["config.sample.num_steps = 12"]
    text = "from configs import flow\n\n\ndef get_config():\n    config = flow.get_config()\n"
    text += "".join(f"    {line}\n" for line in [*sizes, *lines]) + "    return config\n"
    (tmp_path / "own.py").write_text(text)
    words = ["main", "--workdir=w", f"--config={tmp_path / 'own.py'}"]
    best = advice_of(parse(words).values["config"])["recommended"]
    assert best["frame_strides"] == [2, 1]
    config = parse([*words, *shlex.split(best["overrides"])]).values["config"]
    assert len(build_experiment(config).pyramid.stages) == 2
    assert {name: config.sample[name] for name in wanted} == wanted
    assert config.train.stage_probs == ()


def test_limits_are_kept() -> None:
    config = config_of(data__speed_stratum="slow")
    least = advice_of(config, target_debt=0.1)["recommended"]
    assert max(least["debts"]) <= 0.1
    best = advice_of(config, target_cost=0.8)["recommended"]
    assert best["cost"] <= 0.8
    within = [
        row for row in advice_of(config)["candidates"]
        if row["cost"] <= 0.8 and max(row["visible_details"]) <= 1.0
    ]  # fmt: skip
    assert best["error"] == pytest.approx(min(row["error"] for row in within), abs=1e-5)
    assert advice_of(config, target_cost=0.01)["recommended"] is None


def error_of(row: dict[str, Any], **sampler: Any) -> float:
    """The error of a row of natural digits by the law itself, flow and Euler steps."""
    dataset = MovingDigitsSpec(num_frames=8)
    spectrum = measured_clips.measure_clips(dataset, 0, lambda count: None)
    pyramid = make_pyramid(
        FlowPath(), shape=(8, 1, 1), strides=row["frame_strides"],
        stage_fractions=row["stage_fractions"], downsample=(row["downsample"], "stride", "stride"),
        upsample=(row["upsample"], "nearest", "nearest"),
    )  # fmt: skip
    spec = SamplerSpec(steps_per_stage=row["steps_per_stage"], **sampler)
    return GaussianVideos(spectrum).error(pyramid, spec)


def test_windows_are_chosen_where_equal_shares_cannot_exist() -> None:
    """Sixteen times the least noise of a jump is more than DDIM has after a third of its path."""
    fields = {
        "path": "ddim", "path__zero_terminal_snr": False, "pyramid__overlap": 16.0,
        "pyramid__upsample": "nearest",
    }  # fmt: skip
    with pytest.raises(ValueError, match="no noise to start"):
        build_experiment(tiny_config(**fields))
    config = tiny_config(**fields)
    with config.ignore_type():
        config.pyramid.stage_fractions = "auto"
    shares = build_experiment(config).config.pyramid.stage_fractions
    assert len(shares) == 3 and sum(shares) == pytest.approx(1.0) and shares[0] > 1 / 3
    judged = advice_of(config)["configured"]
    assert judged["stage_fractions"] == pytest.approx(shares), "of windows that can exist"


def test_the_configs_own_grids_and_jumps_are_judged_and_no_even_ones() -> None:
    even = config_of()
    stages = build_experiment(even).pyramid.stages
    grids = tuple(
        tuple((s.t_end + (s.t_start - s.t_end) * np.linspace(1, 0, 5) ** 3).tolist())
        for s in stages
    )
    own = config_of(sample__time_grids=grids)
    plain, row = (advice_of(config)["configured"] for config in (even, own))
    assert row["error"] == pytest.approx(error_of(row, time_grids=grids), rel=1e-6)
    assert row["error"] > 1.2 * plain["error"]
    row = advice_of(config_of(sample__renoise=False))["configured"]
    assert row["error"] == pytest.approx(error_of(row, renoise=False), rel=1e-6)


def test_a_limit_of_cost_that_only_bad_settings_keep_to_does_not_pay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = advice_of(config_of(data__speed_stratum="slow"), target_cost=0.7)
    best, vanilla = content["recommended"], content["vanilla"]
    assert best["error"] > content["inputs"]["error_limit"] and not content["pays"]
    assert content["verdict"] == (
        f"Within a cost of 0.7 the least error is {best['error']:.3f}, against "
        f"{vanilla['error']:.3f} of ordinary diffusion."
    )
    out = capsys.readouterr().out
    assert content["verdict"] in out and "the best there is: " in out
    assert "pays here" not in out and "recommended: " not in out
    assert advice_page._head_facts(content)[0] == Fact("pays", "no")
    rows = advice_page._next_best(content)
    assert rows and all(row["cost"] <= 0.7 for row in rows)
    errors = [row["error"] for row in rows]
    assert errors == sorted(errors) and errors[0] >= best["error"]


def test_a_pyramid_that_hardly_saves_anything_does_not_pay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (choice, advice_text):
        monkeypatch.setattr(module, "PAYING_COST", 0.5)
    content = advice_of(config_of(data__speed_stratum="slow"))
    assert content["verdict"] == "A temporal pyramid hardly pays here: its cost is above 0.5."
    assert not content["pays"] and "the best there is: " in capsys.readouterr().out


def test_where_nothing_can_be_tried_it_is_told_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = {"data__speed_stratum": "slow", "pyramid__frame_strides": (1,)}
    told = "No temporal pyramid can be tried: "
    once = advice_of(tiny_config(sample__num_steps=1, **slow))
    assert once["verdict"] == f"{told}one network call is not enough for two stages."
    short = advice_of(config_of(data__num_frames=2, **slow))
    assert short["verdict"] == "Clips are too short for a temporal pyramid."
    assert " clips of 2 frames, too few to repeat one of them\n" in capsys.readouterr().out

    def check_shape(network: VideoDiT, shape: Any, strides: tuple[int, ...]) -> None:
        if strides[0] > 1:
            raise ValueError("no strides over time")

    monkeypatch.setattr(VideoDiT, "check_shape", check_shape)
    refused = advice_of(config_of(**slow))
    assert refused["candidates"] == [] and not refused["pays"]
    assert refused["verdict"] == (
        f"{told}no strides of 2 fit both the network and clips of 8 frames."
    )


@pytest.mark.parametrize(
    "flags, named",
    [
        ({"target_cost": 0.0}, "visible detail 1, cost 0."),
        ({"target_cost": 0.01, "target_debt": 0.5}, "debt 0.5, cost 0.01."),
        ({"target_debt": 0.0}, "error {error_limit:.3g}, debt 0."),
    ],
)
def test_the_limits_that_nothing_keeps_to_are_those_that_were_applied(
    flags: dict[str, float], named: str
) -> None:
    content = advice_of(config_of(data__speed_stratum="slow"), **flags)
    limits = named.format(**content["inputs"])
    assert content["verdict"] == f"No setting keeps to the limits: {limits}"


def test_the_settings_of_the_config_are_judged_too() -> None:
    row = advice_of(config_of(pyramid__stage_fractions=(0.2, 0.3, 0.5)))["configured"]
    assert row["frame_strides"] == [4, 2, 1] and row["steps_per_stage"] == [4, 4, 4]
    assert row["stage_fractions"] == pytest.approx([0.2, 0.3, 0.5])
    assert row["error"] == pytest.approx(error_of(row), rel=1e-9)
    often = (0.8, 0.1, 0.1)
    seldom = advice_of(config_of(train__stage_probs=often))["configured"]
    experiment = build_experiment(config_of(train__stage_probs=often))
    flops = [program.train_flops for program in experiment.programs]
    assert seldom["training_cost"] == pytest.approx(experiment.mean_over_steps(flops) / flops[-1])
    assert seldom["training_cost"] < row["training_cost"] == pytest.approx(7 / 12, rel=0.01)
    space = config_of(pyramid__strides=((2, 2, 2), (1, 1, 1)))
    assert advice_of(space)["configured"] is None


@pytest.mark.parametrize("probs", [(), (0.5, 0.25, 0.25)])
def test_batches_of_equal_tokens_are_of_more_clips_where_clips_cost_less(
    probs: tuple[float, ...],
) -> None:
    config = config_of(train__batch_per_stage="tokens", train__stage_probs=probs)
    content = advice_of(config)
    experiment = build_experiment(config)
    flops = experiment.mean_over_steps([p.train_flops for p in experiment.programs])
    clips = experiment.mean_over_steps(experiment.batch_sizes)
    of_vanilla = experiment.programs[-1].train_flops / experiment.batch_sizes[-1]
    cost = content["configured"]["training_cost"]
    assert cost == pytest.approx(flops / clips / of_vanilla, rel=1e-6)
    three = [row for row in content["candidates"] if row["frame_strides"] == [4, 2, 1]]
    costs = [row["training_cost"] for row in three]
    assert costs and costs == pytest.approx([3 / 7] * len(costs), rel=0.02)


def test_windows_left_to_the_clips_are_judged_as_a_run_would_choose_them() -> None:
    auto = auto_config()
    chosen = build_experiment(auto).config.pyramid.stage_fractions
    row = advice_of(auto)["configured"]
    assert row["stage_fractions"] == pytest.approx(chosen)
    assert row["stage_fractions"] != pytest.approx([1 / 3] * 3)


def test_noise_times_of_the_config_are_judged_as_they_are() -> None:
    slow = {"data__speed_stratum": "slow", "pyramid__upsample": "nearest"}
    even = advice_of(config_of(**slow))
    bad = advice_of(config_of(sample__time_grids=GRIDS, **slow))
    assert bad["configured"]["error"] > 2 * even["configured"]["error"]
    assert bad["vanilla"] == even["vanilla"] and bad["candidates"] == even["candidates"]


def test_what_the_law_does_not_know_is_told(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(pyramid__coarse_noise=0.5)
    content = advising.advise(config, tmp_path, advising.AdviceFlags())
    told = "pyramid.coarse_noise=0.5"
    assert content["not_modelled"] == told.split(", ")
    assert f"  not modelled: {told}\n" in capsys.readouterr().out
    assert told in (tmp_path / "advise.html").read_text()
    assert advice_of(config_of())["not_modelled"] == []
    assert "not modelled" not in capsys.readouterr().out


def test_times_are_shifted_as_those_of_the_bucket_that_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def built(size: int) -> Experiment:
        config = config_of(data__frame_size=size, data__speed_stratum="slow")
        with config.unlocked():
            config.pyramid.time_shift_shape = (1, 64, 64)
        return build_experiment(config)

    small, large = built(32), built(64)
    shapes = (small.shapes[0], large.shapes[0])
    both = dataclasses.replace(large, shapes=shapes)
    assert both.pyramid.time_shift != large.pyramid.time_shift
    adviser = advising.Adviser(both, advising.AdviceFlags())
    adviser._clips = shapes[1]  # as if it had the most clips
    alone = advising.Adviser(large, advising.AdviceFlags()).advice()
    assert adviser.advice()["candidates"] == alone["candidates"]

    problems = []
    search = window_choice.Search
    monkeypatch.setattr(
        window_choice,
        "Search",
        lambda problem, costs: problems.append(problem) or search(problem, costs),
    )
    window_choice.choose_fractions(both, {"large": shapes[1].dataset, "small": shapes[0].dataset})
    assert problems[0].time_shift == large.pyramid.time_shift


@pytest.mark.parametrize("num_frames, has_ladders", [(2, False), (3, True), (9, True), (7, True)])
def test_odd_lengths(num_frames: int, has_ladders: bool) -> None:
    config = config_of(data__num_frames=num_frames, pyramid__frame_strides=(1,))
    assert bool(advice_of(config)["candidates"]) == has_ladders


def test_a_single_frame_is_refused() -> None:
    config = config_of(data__num_frames=1, pyramid__frame_strides=(1,))
    with pytest.raises(ValueError, match=r"data\.num_frames is 1"):
        advice_of(config)


def test_mistakes_are_one_line_and_code_2(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (["--target_cost=x"], "--target_cost"),
        (["--target_cost=-1"], "--target_cost is -1.0; allowed: at least 0"),
        (["--target_debt=nan"], "--target_debt is nan"),
        (["--topology=v5p"], "--topology is no flag of --mode=advise but of plan"),
        (["--config.pyramid.stage_fractions=outo"], "allowed: (), one positive number"),
        (["--workdir=/dev/null/x"], "/dev/null"),
    ]
    for words, named in cases:
        with pytest.raises(SystemExit) as stop:
            main(["main", "--mode=advise", "--config=flow", *words])
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert named in error, error
    with pytest.raises(SystemExit):
        main(["main", "--mode=advise"])
    assert "--config is required by --mode=advise" in capsys.readouterr().err


def test_the_documented_command_runs(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = re.findall(r"```bash\n(.*?)```", (REPO / "docs" / "advise.md").read_text(), re.S)[0]
    words = shlex.split(block.split("tpdiff_jax.main", 1)[1])
    assert words[-1].startswith("--workdir=")
    assert run_mode(parse(["main", *words[:-1]])) == 0
    assert "--config.pyramid.frame_strides=" in capsys.readouterr().out
    assert run_mode(parse(["main", *words[:-1], f"--workdir={tmp_path}"])) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"advise.json", "advise.html"}


@pytest.mark.parametrize("kind", [*KINDS, "buckets"])
def test_any_clips_that_a_config_names(kind: str, tmp_path: pathlib.Path) -> None:
    config = clip_config(prepare_clips(tmp_path, kind), kind, sample__num_steps=6)
    content = advice_of(config)
    data = content["data"]
    assert data["num_frames"] == 4 and 0 < data["num_clips"] <= 16
    assert data["is_pixels"] == (kind != "latents") and bool(data["bucket"]) == (kind == "buckets")
    assert content["detail_shares"]["nearest"]["2"] >= 0
    assert content["detail_shares"]["nearest"]["4"] is None  # one coarse frame shows no change
    assert {tuple(row["frame_strides"]) for row in content["candidates"]} == {(2, 1)}
    noise = content["detail_shares"]["nearest"]["2"]
    if kind == "tfds":  # every pixel drawn by itself
        assert noise == pytest.approx(1.0, abs=0.05) and not content["pays"]


def test_the_clips_choose_their_windows_and_the_config_keeps_the_numbers() -> None:
    config = auto_config(data__speed_stratum="slow")
    experiment = build_experiment(config)
    chosen = experiment.config.pyramid.stage_fractions
    assert len(chosen) == 3 and sum(chosen) == pytest.approx(1.0)
    ends = [stage.t_end for stage in experiment.pyramid.stages]
    assert ends == pytest.approx([1 - chosen[0], chosen[2], 0.0])
    assert build_experiment(auto_config(data__speed_stratum="slow")).config.pyramid == (
        experiment.config.pyramid
    )
    assert config.pyramid.stage_fractions == "auto"
    slower = build_experiment(auto_config(data__speed_stratum="fast")).config.pyramid
    assert slower.stage_fractions != chosen, "other clips, other windows"


def test_a_run_of_one_stage_has_no_windows_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_choice, "measure_clips", None)
    experiment = build_experiment(auto_config(pyramid__frame_strides=(1,)))
    assert experiment.config.pyramid.stage_fractions == ()


def test_windows_that_clips_cannot_choose() -> None:
    with pytest.raises(ValueError, match="strides over height or width"):
        build_experiment(auto_config(pyramid__strides=((2, 2, 2), (1, 1, 1))))
    with pytest.raises(ValueError, match="no clips to measure"):
        build_experiment(auto_config(), frame_shape=(8, 32, 32, 1))
    for wrong in ("outo", ("auto", 0.5), ("auto", "auto")):
        config = auto_config()
        with config.ignore_type():
            config.pyramid.stage_fractions = wrong
        with pytest.raises(ValueError, match=r"pyramid\.stage_fractions is .*allowed: \(\), one"):
            build_experiment(config)


def test_all_processes_take_the_numbers_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def broadcast(numbers: Any) -> Any:
        sent.append(numbers)
        return [500, 250, 250]

    monkeypatch.setattr(window_choice.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", broadcast)
    assert window_choice._of_main((0.35, 0.25, 0.4)) == (0.5, 0.25, 0.25)
    assert sent[0].tolist() == [350, 250, 400] and sent[0].dtype == "int32"


def test_saved_numbers_take_the_place_of_the_word(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = auto_config(data__speed_stratum="slow")
    assert with_saved_windows(config, tmp_path) is config
    keep_config(build_experiment(config), tmp_path)
    saved = load_config(tmp_path).pyramid.stage_fractions
    assert len(saved) == 3 and all(isinstance(share, float) for share in saved)
    monkeypatch.setattr(window_choice, "measure_clips", None)
    filled = with_saved_windows(config, tmp_path)
    assert filled.pyramid.stage_fractions == saved
    check_same_run(load_config(tmp_path), build_experiment(filled).config)
    given = tiny_config(pyramid__stage_fractions=(0.2, 0.3, 0.5))
    assert with_saved_windows(given, tmp_path) is given
    other = auto_config(pyramid__frame_strides=(2, 1))
    assert with_saved_windows(other, tmp_path) is other


@pytest.mark.slow
def test_a_run_that_goes_on_or_samples_measures_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"data__speed_stratum": "slow", "train__num_steps": 1}
    command = parse(["main", f"--workdir={tmp_path}", "--config=flow"])

    def train(config: ConfigDict) -> tuple[float, ...]:
        run_train(command._replace(values={**command.values, "config": config}), tmp_path)
        return tuple(
            json.loads((tmp_path / "config.json").read_text())["pyramid"]["stage_fractions"]
        )

    saved = train(auto_config(**sizes))
    assert len(saved) == 3
    monkeypatch.setattr(window_choice, "measure_clips", None)
    longer = auto_config(**{**sizes, "train__num_steps": 2})
    assert train(longer) == saved
    assert (tmp_path / "checkpoints" / "2").is_dir()
    opened = open_run(tmp_path, config=longer)
    assert opened.step == 2 and opened.experiment.config.pyramid.stage_fractions == saved
    assert open_run(tmp_path).experiment.config.pyramid.stage_fractions == saved
    with pytest.raises(TypeError):  # other strides: not this run's numbers, so that clips are asked
        train(auto_config(**sizes, pyramid__frame_strides=(2, 1)))
