"""Points of a sweep: products, draws, names for folders, and specifications that are refused."""

import pathlib

import pytest

from configs import flow
from launch.sweep_points import (
    grid_points,
    name_points,
    points_of_config,
    random_points,
    short_names,
    split_values,
)

RATE, SOLVER = "optim.learning_rate", "sample.solver"


def test_a_grid_is_the_product_of_its_fields() -> None:
    points = grid_points([f"{RATE}=1e-3,2e-3", f"{SOLVER}=euler,second_order"])
    assert [tuple(point.values()) for point in points] == [
        ("1e-3", "euler"),
        ("1e-3", "second_order"),
        ("2e-3", "euler"),
        ("2e-3", "second_order"),
    ]


def test_commas_inside_brackets_belong_to_a_value() -> None:
    assert split_values("(4,2,1), (1,)") == ["(4,2,1)", "(1,)"]
    assert split_values("a") == ["a"]


def test_draws_lie_in_their_range_and_repeat_with_their_seed() -> None:
    specs = [
        f"{RATE}=log(1e-4,1e-2)",
        "sample.guidance_scale=uniform(1,4)",
        "model.depth=choice(2,4)",
    ]
    points = random_points(specs, 200, seed=1)
    assert points == random_points(specs, 200, seed=1) != random_points(specs, 200, seed=2)
    rates = [float(point[RATE]) for point in points]
    assert 1e-4 <= min(rates) and max(rates) <= 1e-2
    # log-uniform: half of the draws lie below the geometric mean (sd of the share: 0.035)
    assert 0.35 < sum(rate < 1e-3 for rate in rates) / 200 < 0.65
    scales = [float(point["sample.guidance_scale"]) for point in points]
    assert 1 <= min(scales) and max(scales) <= 4
    assert 0.35 < sum(scale < 2.5 for scale in scales) / 200 < 0.65
    assert {point["model.depth"] for point in points} == {"2", "4"}


def test_names_say_the_point_and_fit_a_folder() -> None:
    points = grid_points([f"{RATE}=1e-3", "pyramid.frame_strides=(4,2,1),(1,)"])
    names = name_points(points)
    assert names == [
        "learning_rate_1e-3__frame_strides_4_2_1",
        "learning_rate_1e-3__frame_strides_1",
    ]
    odd = name_points([{"data.root": "../../etc; rm *"}])
    assert odd == ["root_.._.._etc_rm"] and "/" not in odd[0]


def test_names_that_would_clash_or_be_too_long_are_numbered() -> None:
    clash = [{"model.name": "a b"}, {"model.name": "a_b"}]
    assert name_points(clash) == ["point_000", "point_001"]
    assert name_points([{"model.name": "x" * 200}]) == ["point_000"]


def test_fields_that_end_alike_keep_their_group() -> None:
    fields = ["sample.seed", "eval.seed", RATE]
    assert list(short_names(fields).values()) == ["sample.seed", "eval.seed", "learning_rate"]


def test_the_default_config_brings_a_sweep() -> None:
    points = points_of_config("configs/flow.py")
    assert len(points) == len(flow.sweep()) == len(set(name_points(points)))
    assert {name for point in points for name in point} == {RATE, "sample.guidance_scale"}


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("learning_rate=1", "--grid=learning_rate=1 must be like group.field"),
        (f"{RATE}", "must be like group.field"),
        (f"{RATE}=", "must be like group.field"),
    ],
)
def test_a_malformed_grid_is_refused(spec: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        grid_points([spec])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("1,2", r"must be log\(LOW,HIGH\)"),
        ("log(0,1)", "a range above 0"),
        ("log(1,2,3)", "needs two numbers"),
        ("uniform(a,b)", "needs two numbers"),
        ("uniform(2,1)", "2 must lie below 1"),
        ("uniform(0,inf)", "must lie below"),
    ],
)
def test_a_malformed_distribution_is_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        random_points([f"{RATE}={text}"], 1, seed=0)


@pytest.mark.parametrize(
    ("points", "named"),
    [
        (lambda specs: grid_points(specs), f"--grid names {RATE} twice"),
        (lambda specs: random_points(specs, 1, seed=0), f"--random names {RATE} twice"),
    ],
)
def test_a_field_given_twice_is_refused_and_none_of_its_values_lost(points, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        points([f"{RATE}=choice(1,2)", f"{RATE}=choice(3)"])


def test_no_draws_and_points_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="--num-points is 0; allowed: at least 1"):
        random_points([f"{RATE}=uniform(1,2)"], 0, seed=0)
    with pytest.raises(ValueError, match="twice"):
        name_points([{RATE: "1"}, {RATE: "2"}, {RATE: "1"}])


def test_two_spellings_of_a_value_are_one_point_and_words_are_what_they_are() -> None:
    with pytest.raises(ValueError, match="twice"):
        name_points(grid_points([f"{RATE}=1e-3,0.001"]))
    with pytest.raises(ValueError, match="twice"):
        name_points(grid_points(["pyramid.strides=(4,2,1),(4, 2, 1)"]))
    name_points(grid_points(["optim.name=muon,adamw", "alignment.mode=none,nearest"]))


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("", r"has no sweep\(\)"),
        ("def sweep():\n    return []\n", "must give mappings"),
        ("def sweep():\n    return [3]\n", "must give mappings"),
    ],
)
def test_a_config_without_points_is_refused(tmp_path: pathlib.Path, code: str, named: str) -> None:
    path = tmp_path / "config.py"
    path.write_text(code)
    with pytest.raises(ValueError, match=named):
        points_of_config(str(path))
    with pytest.raises(ValueError, match="is not a file"):
        points_of_config(str(tmp_path / "none.py"))
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(ValueError, match="is not a Python file"):
        points_of_config(str(tmp_path / "text.txt"))
