"""Samplers side by side: what is varied, and means and differences known by hand."""

import pytest

from configs import video_folder
from experiments.grid.grids import DIGITS_MEAN
from experiments.pages.sampling_tables import draw_frontier, summarize_points, write_page
from experiments.sampling import (
    main,
    make_pyramids,
    make_variants,
    read_point,
    select_variants,
    tilted_calls,
)
from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.files.json_files import read_json, write_json
from tpdiff_jax.run_folder.run_config import save_config
from tpdiff_jax.train import train


def point(workdir, variant, seed, accuracy, seconds=1.0):
    return {
        "workdir": workdir,
        "variant": variant,
        "seed": seed,
        "metrics": {"label_accuracy": accuracy},
        "references": {"ceiling": {"label_accuracy": 0.95}},
        "seconds_per_video": seconds,
        "flops_per_video": 2e9,
        "steps_per_stage": [10, 10, 10],
        "guidance_per_stage": [2.0, 2.0, 2.0],
    }


def test_every_variant_changes_the_base_in_its_own_way():
    variants = make_variants((4, 2, 1), 2.0)
    assert variants["base"]["renoise"] and not variants["no_renoise"]["renoise"]
    assert variants["guidance_coarsest_only"]["guidance_per_stage"] == (2.0, 1.0, 1.0)
    assert variants["steps_60"]["num_steps"] == 60
    assert len({str(fields) for fields in variants.values()}) == len(variants)
    assert "guidance_2" not in variants
    vanilla = make_variants((1,), 2.0)
    assert "no_renoise" not in vanilla
    assert all(fields["guidance_per_stage"] == () for fields in vanilla.values())


@pytest.mark.parametrize(
    ("strides", "power", "calls", "expected"),
    [
        ((4, 2, 1), 0.0, 30, (10, 10, 10)),
        ((4, 2, 1), 1.0, 30, (17, 9, 4)),  # 17.1, 8.6, 4.3
        ((4, 2, 1), 1.25, 30, (19, 8, 3)),  # 18.8, 7.9, 3.3
        ((4, 2, 1), -0.5, 30, (7, 10, 13)),  # 6.80, 9.61, 13.59
        ((8, 4, 2, 1), 3.0, 6, (3, 1, 1, 1)),  # each stage has one
        ((1,), 1.0, 7, (7,)),
    ],
)
def test_calls_follow_a_power_of_the_strides(strides, power, calls, expected):
    found = tilted_calls(strides, power, calls)
    assert found == expected and sum(found) == calls


def test_pyramids_are_those_of_strides_4_2_1_or_as_given():
    standard = make_pyramids("standard")
    assert len(standard) == 12
    assert standard["linear_thirds"] == {
        "strides": (4, 2, 1), "stage_fractions": (), "upsample": "linear",
    }  # fmt: skip
    assert standard["dct_late"]["downsample"] == "dct"
    assert standard["insert_early"]["data_mean"] == (DIGITS_MEAN,)
    given = "2,1 | strides=(4,2,1) upsample=linear"
    assert list(make_pyramids(given)) == ["2,1", "strides=(4,2,1) upsample=linear"]


@pytest.mark.slow
def test_a_vanilla_run_is_measured_through_pyramids_and_plainly_at_their_cost(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    fields = {"pyramid__frame_strides": (1,), "train__num_steps": 1}
    train(build_experiment(tiny_config(**fields)), run)
    words = [f"--workdirs={run}", f"--out={out}", "--seeds=0", "--num_videos=8"]
    assert main([*words, "--pyramids=4,2,1|strides=(2,1) upsample=linear"]) == 0
    variants = read_json(out / "sampling.json")["variants"]
    flops = {name: row["flops_per_video"] / variants["base"]["flops_per_video"]
             for name, row in variants.items()}  # fmt: skip
    plain = {name for name in variants if name.startswith("plain_")}
    assert variants.keys() - plain == {"base", "4,2,1", "strides=(2,1) upsample=linear"}
    assert flops["4,2,1"] == pytest.approx(7 / 12, rel=0.03)
    assert flops["strides=(2,1) upsample=linear"] == pytest.approx(3 / 4, rel=0.03)
    for name in plain:  # as many calls as their cost allows
        assert flops[name] == pytest.approx(int(name.removeprefix("plain_")) / 30, rel=1e-6)
    assert len(plain) == 2
    assert "| 4,2,1 | 10+10+10 |" in (out / "sampling.md").read_text()


def test_variants_are_chosen_by_name_with_the_base():
    assert select_variants(["base", "a", "b"], ["b"]) == ["base", "b"]
    assert select_variants(["base", "a"], []) == ["base", "a"]
    with pytest.raises(ValueError, match="--variants: no c"):
        select_variants(["base", "a"], ["c"])


def test_a_measurement_is_reused_only_if_it_is_the_same(tmp_path):
    path = tmp_path / "point.json"
    key = {"workdir": "runs/a", "checkpoint_step": 5, "sample": {"steps_per_stage": []}}
    assert read_point(path, key) is None
    write_json(path, {**key, "metrics": {}})
    assert read_point(path, key)["metrics"] == {}
    assert read_point(path, {**key, "checkpoint_step": 6}) is None


def test_the_spread_of_one_run_is_over_its_seeds():
    points = [point("a", "base", seed, 0.5 + 0.1 * seed) for seed in (0, 1)]
    points += [point("a", "other", seed, 0.7 + 0.1 * seed) for seed in (0, 1)]
    summary = summarize_points(points)
    assert summary["unit"] == "seed"
    value = summary["variants"]["base"]["values"]["label_accuracy"]
    assert (value["mean"], value["n"]) == (pytest.approx(0.55), 2)
    difference = summary["variants"]["other"]["differences"]["label_accuracy"]
    assert difference["mean"] == pytest.approx(0.2)
    assert difference["sd"] == pytest.approx(0.0, abs=1e-12)


def test_the_spread_of_several_runs_is_over_runs_not_seeds():
    """Run means are 0.55 and 0.75, whatever their seeds did."""
    points = [point("a", "base", seed, 0.5 + 0.1 * seed) for seed in (0, 1)]
    points += [point("b", "base", seed, 0.7 + 0.1 * seed) for seed in (0, 1)]
    summary = summarize_points(points)
    value = summary["variants"]["base"]["values"]["label_accuracy"]
    assert (summary["unit"], value["n"]) == ("workdir", 2)
    assert value["sd"] == pytest.approx(0.2 / 2**0.5)


def test_a_run_on_other_clips_is_refused_before_anything_is_measured(tmp_path, capsys):
    digits, other = tmp_path / "digits", tmp_path / "clips"
    for folder, config in ((digits, tiny_config()), (other, video_folder.get_config())):
        folder.mkdir()
        save_config(folder, config)
    assert main([f"--workdirs={digits},{other}", f"--out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert f"data.name of {other} is 'video_records'; allowed: moving_digits" in said
    assert not (tmp_path / "out").exists()


def test_a_figure_that_is_not_finite_is_none_as_it_is_when_read_again():
    points = [point("a", "base", seed, value) for seed, value in enumerate((0.5, float("nan")))]
    now = summarize_points(points)
    points[1]["metrics"]["label_accuracy"] = None
    assert now == summarize_points(points)
    value = now["variants"]["base"]["values"]["label_accuracy"]
    assert (value["mean"], value["n"]) == (0.5, 1)


def test_the_page_and_the_frontier_are_written(tmp_path):
    points = [point("a", "base", 0, 0.5), point("a", "other", 0, 0.75, seconds=2.0)]
    summary = summarize_points(points) | {"device": {"platform": "cpu", "kind": "cpu"}}
    page = write_page(summary, ["label_accuracy"])
    assert "| other | 10+10+10 | 2, 2, 2 | 2.00e+09 | 2 | 0.75 |" in page
    assert "| other | +0.25 (n = 1) |" in page
    assert "| *ceiling* | - | - | - | - | 0.95 |" in page
    draw_frontier(tmp_path / "frontier", summary, ["label_accuracy"])
    assert (tmp_path / "frontier.png").is_file()
