"""A command that is refused changes nothing of the folder it was refused for."""

import pathlib

import pytest

from tests.tiny import tiny_config
from tpdiff_jax import train
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoints import Checkpoints
from tpdiff_jax.training.initial_state import make_state, run_keys


@pytest.fixture(scope="module")
def stopped_at_6(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run folder of six steps: its config and one checkpoint."""
    experiment = build_experiment(tiny_config())
    workdir = tmp_path_factory.mktemp("run")
    run_config.save_config(workdir, experiment.config)
    checkpoints = Checkpoints(workdir, identity=experiment.identity)
    checkpoints.save(6, make_state(experiment, run_keys(0)[0]), {})
    checkpoints.close()
    return workdir


def content(workdir: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"train__num_steps": 4}, "train.num_steps=4 is below step 6"),
        ({"optim__learning_rate": 0.5}, "optim.learning_rate: saved 0.001, now 0.5"),
        ({"train__seed": 3}, "train.seed: saved 0, now 3"),
        ({"pyramid__frame_strides": (1,)}, "pyramid.frame_strides: saved (), now (1,)"),
        (
            {"pyramid__strides": ((4, 2, 2), (1, 1, 1))},
            "pyramid.strides: saved (4, 2, 1), now ((4, 2, 2), (1, 1, 1))",
        ),
    ],
)
def test_a_refused_training_command_changes_nothing(
    fields: dict[str, object], refusal: str, stopped_at_6: pathlib.Path
) -> None:
    before = content(stopped_at_6)
    with pytest.raises(ValueError) as error:
        train.train(build_experiment(tiny_config(**fields)), stopped_at_6)
    assert refusal in str(error.value)
    assert content(stopped_at_6) == before


def test_muon_with_nothing_for_it_to_train_is_refused_before_anything_is_written(
    tmp_path: pathlib.Path,
) -> None:
    low_rank = {"adaptation__rank": 2, "adaptation__trained": "blocks/.*"}
    with pytest.raises(ValueError, match=r"optim\.name='muon' .* allowed: 'adamw'"):
        train.train(build_experiment(tiny_config(optim__name="muon", **low_rank)), tmp_path)
    assert not content(tmp_path)
