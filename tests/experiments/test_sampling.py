"""Samplers side by side: what is varied, and means and differences known by hand."""

import pytest

from experiments.pages.sampling_tables import draw_frontier, summarize_points, write_page
from experiments.sampling import make_variants, read_point, select_variants
from tpdiff_jax.files.json_files import write_json


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
    variants = make_variants(3, 2.0)
    assert variants["base"]["renoise"] and not variants["no_renoise"]["renoise"]
    assert variants["guidance_coarsest_only"]["guidance_per_stage"] == (2.0, 1.0, 1.0)
    assert variants["steps_60"]["num_steps"] == 60
    assert len({str(fields) for fields in variants.values()}) == len(variants)
    assert "guidance_2" not in variants
    vanilla = make_variants(1, 2.0)
    assert "no_renoise" not in vanilla
    assert all(fields["guidance_per_stage"] == () for fields in vanilla.values())


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


def test_the_page_and_the_frontier_are_written(tmp_path):
    points = [point("a", "base", 0, 0.5), point("a", "other", 0, 0.75, seconds=2.0)]
    summary = summarize_points(points) | {"device": {"platform": "cpu", "kind": "cpu"}}
    page = write_page(summary, ["label_accuracy"])
    assert "| other | 10+10+10 | 2, 2, 2 | 2.00e+09 | 2 | 0.75 |" in page
    assert "| other | +0.25 (n = 1) |" in page
    assert "| *ceiling* | - | - | - | - | 0.95 |" in page
    draw_frontier(tmp_path / "frontier", summary, ["label_accuracy"])
    assert (tmp_path / "frontier.png").is_file()
