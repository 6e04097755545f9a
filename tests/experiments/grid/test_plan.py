"""Plans: equal FLOPs over the arms, ordinary commands, no folder reused for another run."""

import pytest

from experiments.compare import select_arms
from experiments.grid.arms import Arm, Grid
from experiments.grid.grids import GRIDS, VANILLA
from experiments.grid.overrides import parse_overrides, read_config
from experiments.grid.plan import equal_flops_steps, equal_share_period, plan_runs
from experiments.grid.run_queue import split_cores
from tests.tiny import SIZES
from tpdiff_jax.run_folder import run_config

MAIN = GRIDS["main"]
BASE = {name: str(value) for name, value in SIZES.items()} | {
    "train.num_steps": "1200",
    "train.eval_every_steps": "120",
}


def test_steps_of_equal_flops():
    assert equal_flops_steps(1200, 7.0, 12.0) == 700
    assert equal_flops_steps(1200, 5.0, 5.0) == 1200
    assert equal_flops_steps(1, 1.0, 100.0) == 1


@pytest.mark.parametrize("steps, period", [(700, 70), (699, 70), (1200, 120), (3, 1)])
def test_evaluations_fall_at_the_same_shares(steps, period):
    """Ten evaluations of 1200 steps stay at most ten, the last at the end."""
    assert equal_share_period(120, 1200, steps) == period
    assert equal_share_period(0, 1200, steps) == 0


def test_the_arms_of_a_grid_cost_the_same_within_a_step(tmp_path):
    runs = plan_runs(MAIN, MAIN.arms, BASE, [0, 1], tmp_path)
    assert [(run.arm, run.seed) for run in runs[:4]] == [
        ("flow_pyramid", 0),
        ("flow_vanilla", 0),
        ("ddim_pyramid", 0),
        ("ddim_vanilla", 0),
    ]
    pyramid, vanilla = runs[0], runs[1]
    assert pyramid.num_steps == 1200
    assert vanilla.num_steps < 1200
    assert vanilla.flops == pytest.approx(pyramid.flops, abs=vanilla.flops / vanilla.num_steps / 2)
    assert {run.seed for run in runs[4:]} == {1}


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_gives_valid_configs(name, tmp_path):
    runs = plan_runs(GRIDS[name], GRIDS[name].arms, BASE | {"sample.num_steps": "4"}, [0], tmp_path)
    assert len(runs) == len(GRIDS[name].arms)
    assert len({str(run.config.to_dict()) for run in runs}) == len(runs)


def test_a_length_is_a_run_of_its_own_that_is_measured_at_its_end(tmp_path):
    runs = plan_runs(MAIN, MAIN.arms[:2], BASE, [0, 1], tmp_path, [1.0, 0.4])
    assert [(run.workdir.name, run.num_steps) for run in runs[:2]] == [
        ("flow_pyramid_0.4_seed_0", 480),
        ("flow_pyramid_1_seed_0", 1200),
    ]
    assert [run.workdir.name for run in runs[2:3]] == ["flow_vanilla_1_seed_0"] and len(runs) == 6
    for run in runs:
        train = run.config.train
        assert train.num_steps == train.eval_every_steps == train.sample_every_steps
        assert run.config.optim.schedule_steps == 0  # the schedule ends with the run
    assert runs[0].flops == pytest.approx(0.4 * runs[1].flops)


def test_the_command_line_gives_the_planned_config(tmp_path):
    run = plan_runs(MAIN, MAIN.arms, BASE, [3], tmp_path)[1]
    flags = [flag for flag in run.command() if flag.startswith("--config.")]
    config = read_config("configs/flow.py", parse_overrides(flags))
    assert config == run.config
    assert config.pyramid.frame_strides == (1,)
    assert (config.train.seed, config.train.num_steps) == (3, run.num_steps)


@pytest.mark.parametrize("kernel", ["cudnn", "splash"])
def test_a_kernel_of_the_runs_devices_is_handed_on_though_plans_are_made_on_a_cpu(kernel, tmp_path):
    fields = {"model.attention_kernel": kernel, "model.dtype": "bfloat16"}
    (run, *_) = plan_runs(MAIN, MAIN.arms[:1], {**BASE, **fields}, [0], tmp_path)
    assert run.config.model.attention_kernel == kernel
    assert f"--config.model.attention_kernel={kernel}" in run.command()
    with pytest.raises(ValueError, match=r"needs model.dtype='bfloat16'"):
        other = {"model.attention_kernel": "cudnn", "model.dtype": "float32"}
        plan_runs(MAIN, MAIN.arms[:1], {**BASE, **other}, [0], tmp_path)


def test_a_folder_of_another_run_is_refused(tmp_path):
    run = plan_runs(MAIN, MAIN.arms, BASE, [0], tmp_path)[0]
    run.workdir.mkdir(parents=True)
    run_config.save_config(run.workdir, run.config)
    assert plan_runs(MAIN, MAIN.arms, BASE, [0], tmp_path)[0].config == run.config
    with pytest.raises(ValueError, match="optim.learning_rate: there 0.001, planned 0.002"):
        plan_runs(MAIN, MAIN.arms, BASE | {"optim.learning_rate": "2e-3"}, [0], tmp_path)


@pytest.mark.parametrize(
    "field, chosen", [("pyramid.stage_fractions", (0.5, 0.3, 0.2)), ("model.remat", "blocks")]
)
def test_a_run_that_chose_what_is_left_to_it_is_the_planned_one(field, chosen, tmp_path):
    base = BASE | {field: "auto"}
    run = plan_runs(MAIN, MAIN.arms[:1], base, [0], tmp_path)[0]
    group, name = field.split(".")
    saved = run.config.copy_and_resolve_references()
    with saved.ignore_type():
        saved[group][name] = chosen
    run.workdir.mkdir(parents=True)
    run_config.save_config(run.workdir, saved)
    assert plan_runs(MAIN, MAIN.arms[:1], base, [0], tmp_path)[0].command() == run.command()
    with pytest.raises(ValueError, match=r"optim\.learning_rate: there 0\.001, planned 0\.002"):
        plan_runs(MAIN, MAIN.arms[:1], base | {"optim.learning_rate": "2e-3"}, [0], tmp_path)


def test_bad_overrides_are_named():
    with pytest.raises(ValueError, match="--confg.train.seed=1 must be"):
        parse_overrides(["--confg.train.seed=1"])
    with pytest.raises(ValueError, match="--config.train.seed must be"):
        parse_overrides(["--config.train.seed"])
    with pytest.raises(ValueError, match="speed_limit"):
        read_config("configs/flow.py", {"train.speed_limit": "1"})
    with pytest.raises(ValueError, match="many"):
        read_config("configs/flow.py", {"train.num_steps": "many"})


def test_workers_share_no_core():
    assert split_cores([0, 1], 2) == [[0], [1]]
    assert split_cores([0, 1, 4, 5, 6], 2) == [[0, 1], [4, 5, 6]]
    for workers in (0, 3):
        with pytest.raises(ValueError, match=f"--workers={workers}"):
            split_cores([0, 1], workers)


def test_grids_refuse_unknown_baselines_and_names_used_twice():
    one = Arm(name="one", overrides={})
    with pytest.raises(ValueError, match="share a name"):
        Grid(arms=(one, one), reference="one")
    with pytest.raises(ValueError, match="no arm is called two"):
        Grid(arms=(one, Arm(name="three", overrides=VANILLA, baseline="two")), reference="one")


def test_noise_prediction_is_compared_at_the_end_of_the_path_that_it_has():
    """It cannot have no signal at the end, which `plain_terminal_snr` alone has too."""
    grid = GRIDS["ddim_ablations"]
    arm = grid.arm("prediction_eps")
    other = grid.arm(arm.baseline)
    changed = {field for field in arm.overrides if other.overrides[field] != arm.overrides[field]}
    assert arm.baseline == "plain_terminal_snr" and changed == {"path.prediction"}


def test_selected_arms_bring_their_baseline_and_keep_the_budget(tmp_path):
    arms = select_arms(MAIN, ["ddim_pyramid"])
    assert [arm.name for arm in arms] == ["ddim_pyramid", "ddim_vanilla"]
    assert select_arms(MAIN, []) == list(MAIN.arms)
    runs = plan_runs(MAIN, arms, BASE, [0], tmp_path)
    assert runs == plan_runs(MAIN, MAIN.arms, BASE, [0], tmp_path)[2:]
    with pytest.raises(ValueError, match="--arms: no best"):
        select_arms(MAIN, ["best"])
