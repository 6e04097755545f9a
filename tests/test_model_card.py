"""A folder for a model hub: a card that the hub's own library reads, and weights that load back."""

import json
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard
from ml_collections import ConfigDict

import tpdiff_jax
from tests.small_clips import KINDS, clip_config
from tests.tiny import REPO, tiny_config
from tpdiff_jax import main
from tpdiff_jax.devices.origin import code_commit
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.export import export_model_card
from tpdiff_jax.generation.from_checkpoint import OpenedRun, open_run
from tpdiff_jax.generation.prompts import SampleFlags, read_requests
from tpdiff_jax.run_folder.checkpoints import Checkpoints
from tpdiff_jax.run_folder.run_config import save_config
from tpdiff_jax.training.initial_state import make_state, run_keys
from tpdiff_jax.training.training_folder import keep_config, open_workdir

Folders = dict[str, pathlib.Path]
RESULTS: dict[str, Any] = {
    "metrics": {"label_accuracy": 0.75, "frechet": 12.5, "bounce_error": None},
    "references": {
        "ceiling": {"label_accuracy": 0.96, "frechet": 1.5, "bounce_error": 0.0},
        "frozen": {"label_accuracy": 0.9, "frechet": 136.0},
    },
    "metric_info": {
        "label_accuracy": {"direction": "higher", "unit": "share", "meaning": "asked | for"},
        "frechet": {"direction": "lower", "unit": "1", "meaning": "distance"},
    },
    "counts": {"steps": 6, "eval_videos": 32},
}


def begin(config: ConfigDict, workdir: pathlib.Path, step: int = 6) -> pathlib.Path:
    """Leave what a run leaves that has a checkpoint, with numbers in all of its parameters."""
    experiment = build_experiment(config)
    open_workdir(experiment, workdir)
    keep_config(experiment, workdir)
    state = make_state(experiment, run_keys(0)[0])
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: a + rng.standard_normal(a.shape).astype(np.float32), state.ema_params
    )
    checkpoints = Checkpoints(workdir, identity=experiment.identity)
    checkpoints.save(step, state._replace(ema_params=params), {})
    checkpoints.close()
    return workdir


def add_results(workdir: pathlib.Path, **changes: Any) -> None:
    (workdir / "results.json").write_text(json.dumps(RESULTS | changes))
    (workdir / "samples").mkdir(exist_ok=True)
    for i in range(10):
        (workdir / "samples" / f"{i:04d}_a (b) [c].mp4").write_bytes(bytes([i]))
    (workdir / "samples" / "grid.gif").write_bytes(b"GIF89a")


def same_params(a: OpenedRun, b: OpenedRun) -> bool:
    equal = jax.tree.map(
        lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(),
        *(run.params for run in (a, b)),
    )
    return jax.tree.all(equal)


def test_the_hubs_library_reads_the_card(tmp_path: pathlib.Path) -> None:
    workdir = begin(tiny_config(), tmp_path / "digits")
    add_results(workdir)
    folder = export_model_card(open_run(workdir), None, "float32")
    assert folder == workdir / "export" / "step_00000006_model_card"
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert (data["license"], data["library_name"]) == ("apache-2.0", "tpdiff_jax")
    assert data["pipeline_tag"] == "text-to-video"
    assert {"tpdiff", "video_dit", "flow-matching", "jax", "arxiv:2503.09566"} <= set(data["tags"])
    assert all(isinstance(tag, str) for tag in data["tags"])
    assert card.data.model_name == "digits"
    found = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert found == {"label_accuracy": 0.75, "frechet": 12.5}, "what is no number is left out"
    assert {r.dataset_type for r in card.data.eval_results} == {"moving_digits"}
    rows = [line for line in card.text.splitlines() if line.startswith("| ")]
    assert rows == [
        "| figure | generated | ceiling | frozen | better |",
        "| asked / for (share) | 0.75 | 0.96 | 0.9 | higher |",
        "| distance | 12.5 | 1.5 | 136 | lower |",
        "| bounce_error | - | 0 | - |  |",
    ]
    assert "32 generated videos" in card.text and 'tpdiff_jax.open_run("FOLDER")' in card.text
    assert "labels=[3, 1, 4]" in card.text and "after 6 steps" in card.text


def test_the_example_on_the_card_is_taken_by_its_run(tmp_path: pathlib.Path) -> None:
    workdir = begin(tiny_config(data__num_digits=2), tmp_path / "digits")
    run = open_run(workdir)
    text = (export_model_card(run, None, "float32") / "README.md").read_text()
    labels = re.findall(r"labels=(\[.*?\])", text)
    assert labels == ['["3-1", "4-1"]']
    flags = SampleFlags(labels=json.loads(labels[0]))
    requests, rows, _ = read_requests(run.experiment, flags, 1)
    assert requests.cond["label"][rows].tolist() == [[3, 1], [4, 1]]


def test_what_the_card_names_lies_beside_it(tmp_path: pathlib.Path) -> None:
    workdir = begin(tiny_config(), tmp_path / "digits")
    add_results(workdir)
    folder = export_model_card(open_run(workdir), None, "bfloat16", tmp_path / "out")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("README.md", "LICENSE", "config.json", "tpdiff_run.json", "samples/grid.gif"),
        "diffusion_pytorch_model.safetensors",
        *(f"samples/{i:04d}_a (b) [c].mp4" for i in range(8)),
    }
    assert (folder / "LICENSE").read_text() == (REPO / "LICENSE").read_text()
    text = (folder / "README.md").read_text()
    assert "![Generated videos](samples/grid.gif)" in text
    assert "[1](samples/0000_a%20%28b%29%20%5Bc%5D.mp4), [2](" in text
    kept = (folder / "tpdiff_run.json").read_text()
    assert str(tmp_path) not in text + kept and "command" not in json.loads(kept)
    assert json.loads(kept).get("commit", "") == code_commit(REPO / "tpdiff_jax")


@pytest.mark.parametrize(
    ("strides", "words"), [((2, 1), "strides 2x1x1 -> 1x1x1"), ((1,), "vanilla diffusion")]
)
def test_a_pyramid_is_claimed_where_there_is_one(
    strides: tuple[int, ...], words: str, tmp_path: pathlib.Path
) -> None:
    workdir = begin(tiny_config(pyramid__frame_strides=strides), tmp_path / "digits")
    card = ModelCard.load(export_model_card(open_run(workdir), None, "float32") / "README.md")
    assert words in card.text and " with 1 channel, trained" in card.text
    assert ("temporal-pyramid" in card.data.to_dict()["tags"]) == (len(strides) > 1)


def test_figures_and_samples_of_another_step_are_not_shown(tmp_path: pathlib.Path) -> None:
    workdir = begin(tiny_config(train__num_steps=9), tmp_path / "digits")
    add_results(workdir, counts={"steps": 9})
    folder = export_model_card(open_run(workdir), None, "float32")
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is None and "## Figures" not in card.text
    assert "## Samples" not in card.text and not (folder / "samples").exists()
    unmeasured = {**RESULTS, "metrics": {}, "references": {}, "metric_info": {}}
    for damaged in ("{", '{"metrics": {}}', json.dumps(unmeasured)):
        (workdir / "results.json").write_text(damaged)
        again = export_model_card(open_run(workdir), None, "float32", tmp_path / str(len(damaged)))
        assert "## Figures" not in (again / "README.md").read_text()


@pytest.mark.parametrize(
    ("asked", "licence", "has_text"), [(None, "apache-2.0", True), ("openrail", "openrail", False)]
)
def test_the_licence_is_the_packages_or_the_one_asked_for(
    asked: str | None, licence: str, has_text: bool, tmp_path: pathlib.Path
) -> None:
    workdir = begin(tiny_config(), tmp_path / "digits")
    folder = export_model_card(open_run(workdir), None, "float32", licence=asked)
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == licence and f"## Licence\n\n`{licence}`" in card.text
    assert (folder / "LICENSE").exists() == has_text
    for wrong in ("", "Apache 2.0", "a\nb: c", "-"):
        with pytest.raises(ValueError, match="^--licence is "):
            export_model_card(open_run(workdir), None, "float32", tmp_path / "no", licence=wrong)
    assert not (tmp_path / "no").exists()


def test_a_run_from_others_weights_claims_no_licence(tmp_path: pathlib.Path) -> None:
    first = begin(tiny_config(), tmp_path / "digits")
    published = export_model_card(open_run(first), None, "float32")
    second = begin(tiny_config(model__weights=str(published)), tmp_path / "second")
    folder = export_model_card(open_run(second), None, "float32")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "other" and card.data.license_name
    assert "their licence holds for these weights too" in card.text
    assert not (folder / "LICENSE").exists()
    assert str(tmp_path) not in (folder / "tpdiff_run.json").read_text()


@pytest.mark.parametrize("kind", ["digits", *KINDS, "buckets"])
def test_weights_of_every_kind_of_clips_load_back_bit_for_bit(
    kind: str, small_clips: Folders, tmp_path: pathlib.Path
) -> None:
    config = tiny_config() if kind == "digits" else clip_config(small_clips[kind], kind)
    workdir = begin(config, tmp_path / "run", step=1)
    before = open_run(workdir)
    folder = export_model_card(before, None, "float32")
    moved = folder.rename(tmp_path / "elsewhere")
    again = open_run(moved)
    assert again.step == 1 and same_params(before, again)
    assert again.experiment.shapes[0].video_shape == before.experiment.shapes[0].video_shape
    text = (moved / "README.md").read_text() + (moved / "tpdiff_run.json").read_text()
    assert str(tmp_path) not in text and str(small_clips["tfds"].parent) not in text
    tag = ModelCard.load(moved / "README.md").data.pipeline_tag
    assert tag == ("text-to-video" if kind in ("digits", "latents") else "other")


def test_low_rank_changes_are_merged(tmp_path: pathlib.Path) -> None:
    adapted = {"rank": 2, "trained": ".*qkv/kernel", "alpha": 2.0}
    fields = {f"adaptation__{name}": value for name, value in adapted.items()}
    before = open_run(begin(tiny_config(**fields), tmp_path / "run"))
    again = open_run(export_model_card(before, None, "float32"))
    assert before.low_rank is not None and again.low_rank is None
    assert same_params(before, again)


def test_a_damaged_folder_is_one_line(tmp_path: pathlib.Path) -> None:
    folder = export_model_card(open_run(begin(tiny_config(), tmp_path / "run")), None, "float32")
    path = folder / "tpdiff_run.json"
    whole = json.loads(path.read_text())
    for changed, told in (
        ({"step": -1}, "tpdiff_run.json"),
        ({"config": {}}, "tpdiff_run.json: its config has no model.weights"),
        ({"config": whole["config"] | {"train": 3}}, "tpdiff_run.json|train"),
    ):
        path.write_text(json.dumps(whole | changed))
        with pytest.raises(ValueError, match=told):
            open_run(folder)


def test_the_licence_belongs_to_the_card(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_config(tmp_path, tiny_config())
    words = ["--mode=export", f"--workdir={tmp_path}", "--licence=mit", "--what=weights"]
    with pytest.raises(SystemExit) as stop:
        main.main(["tpdiff_jax", *words])
    assert stop.value.code == 2
    assert "--licence=mit is for --what=model_card" in capsys.readouterr().err


@pytest.mark.slow
def test_videos_from_the_folder_are_those_of_the_run(tmp_path: pathlib.Path) -> None:
    workdir = begin(tiny_config(pyramid__frame_strides=(1,)), tmp_path / "digits")
    folder = export_model_card(open_run(workdir), None, "float32", tmp_path / "out")
    videos = [
        tpdiff_jax.open_run(place).sample(labels=[3, 1], seed=5) for place in (workdir, folder)
    ]
    assert videos[0].shape == (2, 8, 32, 32, 1)
    np.testing.assert_array_equal(*videos)
