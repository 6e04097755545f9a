"""What an export may write over: nothing; and what an exported model may be taken for: no run."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import save_file

from tests.test_model_card import add_results, begin, same_params
from tests.tiny import tiny_config
from tpdiff_jax import doctor, evaluate, export, main, replay, train
from tpdiff_jax.evals.measures import Evaluation
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.export import export_adapter, export_model_card, export_run
from tpdiff_jax.files.durable import WriteError, write_durably, writing
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, OpenedRun, open_run
from tpdiff_jax.generation.output_folder import UNFINISHED_EXPORT_FILE, only_these_videos
from tpdiff_jax.run_folder.run_config import check_is_run
from tpdiff_jax.training.training_folder import only_trainer, open_workdir

Write = Callable[..., pathlib.Path]
WRITERS = (export_run, export_adapter, export_model_card)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run with low-rank changes, so that every kind of export can be asked for."""
    config = tiny_config(adaptation__rank=2, adaptation__trained=".*qkv/kernel")
    return begin(config, tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def run(digits: pathlib.Path) -> OpenedRun:
    return open_run(digits)


@pytest.fixture(scope="module")
def card(run: OpenedRun, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An exported model."""
    return export_model_card(run, None, "float32", tmp_path_factory.mktemp("cards") / "model")


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def content(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("write", WRITERS)
def test_an_export_into_a_run_is_refused_and_changes_nothing(
    write: Write, run: OpenedRun, digits: pathlib.Path
) -> None:
    before = content(digits)
    for out in (digits, digits / "checkpoints", digits / "checkpoints" / "6"):
        with pytest.raises(ValueError, match=r"^--out=.* is not empty \("):
            write(run, None, "float32", out)
    assert content(digits) == before


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE", "config.json", "samples/1.mp4", "notes.txt", "unet/x/y"]
)
def test_foreign_files_are_refused_and_kept(
    name: str, write: Write, run: OpenedRun, tmp_path: pathlib.Path
) -> None:
    write_durably(tmp_path / name, "mine")
    before = content(tmp_path)
    with pytest.raises(ValueError, match=r"^--out=.* is not empty .*name another folder"):
        write(run, None, "float32", tmp_path)
    assert content(tmp_path) == before


@pytest.mark.parametrize("write", WRITERS)
def test_hidden_files_and_empty_folders_are_no_obstacle_and_a_second_export_is(
    write: Write, run: OpenedRun, tmp_path: pathlib.Path
) -> None:
    write_durably(tmp_path / ".DS_Store", "")
    (tmp_path / "unet" / "empty").mkdir(parents=True)
    write(run, None, "float32", tmp_path)
    assert list(tmp_path.glob("*.safetensors")) and not (tmp_path / UNFINISHED_EXPORT_FILE).exists()
    before = content(tmp_path)
    with pytest.raises(ValueError, match="already holds safetensors; choose another folder"):
        write(run, None, "float32", tmp_path)
    assert content(tmp_path) == before


def test_an_export_that_fails_or_is_killed_can_be_repeated(
    run: OpenedRun, card: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise WriteError(28, "full")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(export, "card_text", fail)
        with pytest.raises(WriteError):
            export_model_card(run, None, "float32", out)
    assert set(content(out).values()) <= {None}, "folders at the most"
    shutil.copytree(card, out, dirs_exist_ok=True)
    write_durably(out / "samples" / "0000.mp4", "of the killed one")
    write_durably(out / UNFINISHED_EXPORT_FILE, "")
    export_run(run, None, "float32", out)
    files = {path.name for path in out.rglob("*") if path.is_file()}
    assert files == {"config.json", "diffusion_pytorch_model.safetensors"}


def test_what_a_killed_export_did_not_write_stays(run: OpenedRun, tmp_path: pathlib.Path) -> None:
    for name in ("notes.txt", "unet/readme.md", "a/b/config.json", UNFINISHED_EXPORT_FILE):
        write_durably(tmp_path / name, "mine")
    before = content(tmp_path)
    with pytest.raises(ValueError, match=r"is not empty \(a, notes.txt, unet\)"):
        export_run(run, None, "float32", tmp_path)
    assert content(tmp_path) == before


@pytest.mark.usefixtures("usual_umask")
def test_exported_files_have_the_mode_that_new_files_have(
    run: OpenedRun, digits: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    add_results(digits)
    try:
        for write in WRITERS:
            write(run, None, "float32", tmp_path / write.__name__)
    finally:
        (digits / "results.json").unlink()
        shutil.rmtree(digits / "samples")
    again = begin(tiny_config(), tmp_path / "run")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.suffix == ".safetensors" for path in files) == 3
    wrong = {p.name: oct(p.stat().st_mode) for p in files if p.stat().st_mode & 0o777 != 0o640}
    assert list(again.glob("checkpoints/6/*")) and not wrong


@pytest.mark.usefixtures("usual_umask")
def test_the_mode_does_not_depend_on_what_a_library_or_a_kill_left(tmp_path: pathlib.Path) -> None:
    with writing(tmp_path / "a.npz") as temporary:
        left = temporary
    left.write_bytes(b"half")
    left.chmod(0o600)
    with writing(tmp_path / "a.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, x=np.zeros(2))
    with writing(tmp_path / "b.safetensors") as temporary:
        save_file({"x": np.zeros(2)}, temporary)
    (tmp_path / "c").write_text("old")
    (tmp_path / "c").chmod(0o600)
    write_durably(tmp_path / "c", "new")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_an_exported_model_is_no_run(card: pathlib.Path) -> None:
    before = content(card)
    config = build_experiment(tiny_config())

    def lock() -> None:
        with only_trainer(card):
            pytest.fail("must not be entered")

    attempts: tuple[Callable[[], Any], ...] = (
        lock,
        lambda: train.train(config, card),
        lambda: open_workdir(config, card),
        lambda: doctor.examine(card),
        lambda: doctor.trust(card, 6),
        lambda: replay.replay(card, 3),
        lambda: open_run(card, config=tiny_config()),
    )
    for attempt in attempts:
        with pytest.raises(ValueError, match="^--workdir=.* is an exported model, not a") as error:
            attempt()
        text = str(error.value)
        assert "sample, evaluate" in text and f"--config.model.weights={card}" in text
        assert "\n" not in text
    assert content(card) == before
    check_is_run(card)
    with pytest.raises(ValueError, match="--step=5: .* is an exported model, of step 6"):
        open_run(card, step=5)
    assert open_run(card, step=6).step == 6


def test_an_exported_model_without_a_config_at_its_top_is_none_either(
    card: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copy(card / "tpdiff_run.json", tmp_path)
    for attempt in (doctor.examine, lambda w: open_workdir(build_experiment(tiny_config()), w)):
        with pytest.raises(ValueError, match="is an exported model"):
            attempt(tmp_path)


def test_a_folder_of_weights_alone_is_no_run(run: OpenedRun, tmp_path: pathlib.Path) -> None:
    folder = export_run(run, None, "float32", tmp_path / "weights")
    for attempt in (doctor.examine, check_is_run, open_run, lambda w: replay.replay(w, 1)):
        with pytest.raises(ValueError, match="config of a network, 'VideoDiT'; .*model.weights="):
            attempt(folder)


def test_a_runs_checkpoints_come_before_exported_weights_beside_them(
    run: OpenedRun, card: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    other = export_model_card(open_run(begin(tiny_config(), tmp_path / "other")), None, "float32")
    for path in other.iterdir():
        if path.name != "config.json":
            shutil.copy(path, run.workdir)
    try:
        again = open_run(run.workdir)
        assert again.low_rank is not None and same_params(run, again)
        doctor.examine(run.workdir)
        shutil.copytree(run.workdir, tmp_path / "spoilt")
        shutil.copy(card / "config.json", tmp_path / "spoilt")
        with pytest.raises(ValueError, match="config of a network"):
            open_run(tmp_path / "spoilt", step=6)
    finally:
        for path in other.iterdir():
            if path.name != "config.json":
                (run.workdir / path.name).unlink()


@pytest.mark.parametrize("place", ["file", "file/inside", "link"])
def test_an_out_that_is_no_folder_is_named(
    place: str, run: OpenedRun, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    out = tmp_path / place
    told = f"--out={out}: {tmp_path / place.split('/')[0]} is no folder; allowed: a folder"
    for write in WRITERS:
        with pytest.raises(ValueError) as error:
            write(run, None, "float32", out)
        assert str(error.value) == told
    with pytest.raises(ValueError, match="is no folder"), only_these_videos(out):
        pass
    with pytest.raises(SystemExit) as stop:
        main.main(["tpdiff_jax", "--mode=export", f"--workdir={run.workdir}", f"--out={out}"])
    assert stop.value.code == 2 and told in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("asked", "text"), [(None, True), ("mit", False)])
def test_a_model_exported_again_keeps_its_licence(
    asked: str | None, text: bool, run: OpenedRun, tmp_path: pathlib.Path
) -> None:
    first = export_model_card(run, None, "float32", tmp_path / "first", asked)
    second = export_model_card(open_run(first), None, "float32", tmp_path / "second")
    licence = asked or "apache-2.0"
    assert ModelCard.load(second / "README.md").data.license == licence
    assert (second / "LICENSE").is_file() == text
    assert "others have published" not in (second / "README.md").read_text()
    opened = open_run(first)
    new = export_model_card(opened, None, "float32", tmp_path / "new", "bsd")
    assert ModelCard.load(new / "README.md").data.license == "bsd"
    assert not (new / "LICENSE").exists()
    write_durably(first / "LICENSE", "the author's own text")
    third = export_model_card(opened, None, "float32", tmp_path / "third")
    assert (third / "LICENSE").read_text() == "the author's own text"


def test_a_licence_that_a_card_does_not_name_is_not_made_up(
    card: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = shutil.copytree(card, tmp_path / "model")
    opened = open_run(folder)
    for i, text in enumerate(("", "# Model", "---\nlicense: [\n---", "---\nlicense: 3\n---\n")):
        (folder / "README.md").write_text(text)
        out = export_model_card(opened, None, "float32", tmp_path / f"out{i}")
        assert ModelCard.load(out / "README.md").data.license == "other"
        assert "others have published" in (out / "README.md").read_text()


def test_weights_of_others_stay_theirs_when_exported_again(
    card: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    second = begin(tiny_config(model__weights=str(card)), tmp_path / "second")
    first = export_model_card(open_run(second), None, "float32", tmp_path / "first", "mit")
    again = export_model_card(open_run(first), None, "float32", tmp_path / "again")
    for folder in (first, again):
        read = ModelCard.load(folder / "README.md")
        assert read.data.license == "mit" and "others have published" in read.text


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("a_b_c", r"# a\_b\_c"),
        ("*bold* [x](y)", r"# \*bold\* \[x\](y)"),
        ("<b>&amp;`code`", r"# \<b\>\&amp;\`code\`"),
        ("two\n# lines #", r"# two \# lines \#"),
        ("back\\slash ~x~", r"# back\\slash \~x\~"),
        ("run-2.5 (b)", "# run-2.5 (b)"),
    ],
)
def test_a_name_is_shown_as_it_is(
    name: str, heading: str, run: OpenedRun, tmp_path: pathlib.Path
) -> None:
    folder = export_model_card(run._replace(workdir=tmp_path / name), None, "float32")
    assert heading in (folder / "README.md").read_text().splitlines()
    ModelCard.load(folder / "README.md")


class Measure:
    """Stands for an `Evaluator`."""

    is_possible, num_videos = True, 4

    def __init__(self, *_: Any) -> None:
        """Measure nothing."""

    def __call__(self, _: Any) -> Evaluation:
        return {"metrics": {"frechet": 1.0}, "references": {}, "metric_info": {}}


def test_evaluations_of_other_settings_stand_side_by_side(
    digits: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says how its videos were made; the same evaluation made again takes its place."""
    monkeypatch.setattr(evaluate, "Evaluator", Measure)
    (tmp_path / "evaluation_00000006.json").write_text('{"metrics": {"frechet": 2.0}}')

    def name(**flags: Any) -> str:
        opened = open_run(digits, overrides=GenerateFlags(**flags))
        return evaluate.evaluate_run(opened, tmp_path).name

    names = [f"evaluation_00000006_{i}.json" for i in (2, 3, 4)]
    scales = ["1.0", "2.0", "2.0"]
    assert [name(), name(seed=7), name(guidance_scale=scales)] == names
    assert [name(seed=7), name(), name(guidance_scale=scales)] == [names[1], names[0], names[2]]
    assert "2.0" in (tmp_path / "evaluation_00000006.json").read_text(), "it says no setting"
    settings = [json.loads((tmp_path / name).read_text())["setting"] for name in names]
    assert [setting["seed"] for setting in settings] == [1, 7, 1]
    sampler = settings[2]["sampler"]
    assert sampler["guidance_scale"] == [1.0, 2.0, 2.0] and sampler["solver"] == "euler"
    assert settings[0]["num_videos"] == 4 and sum(sampler["steps_per_stage"]) > 0
    assert settings[0]["bucket"] == "" and settings[0]["adapter"] is None
    assert settings[0]["measure"]["fvd_weights"] == ""


def test_an_adapter_is_part_of_what_an_evaluation_says(
    run: OpenedRun, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "Evaluator", Measure)
    export_adapter(run, None, "float32", tmp_path / "adapter")
    flags = GenerateFlags(adapter=str(tmp_path / "adapter"), adapter_scale="0.5")
    adapted = open_run(run.workdir, overrides=flags)
    path = evaluate.evaluate_run(adapted, tmp_path)
    told = json.loads(path.read_text())["setting"]["adapter"]
    assert told == {"path": flags.adapter, "scale": 0.5}


def test_other_processes_write_and_print_no_evaluation(
    run: OpenedRun,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluate, "Evaluator", Measure)
    monkeypatch.setattr(evaluate.jax, "process_index", lambda: 1)
    path = evaluate.evaluate_run(run, tmp_path)
    assert not path.exists() and not [*tmp_path.iterdir()] and not capsys.readouterr().out
    monkeypatch.setattr(evaluate.jax, "process_index", lambda: 0)
    assert evaluate.evaluate_run(run, tmp_path) == path and path.exists()
    assert "frechet" in capsys.readouterr().out


def test_an_evaluation_names_an_out_that_is_no_folder(
    run: OpenedRun, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")

    def measured(*_: Any) -> None:
        pytest.fail("nothing must be measured before")

    monkeypatch.setattr(Measure, "__call__", measured)
    monkeypatch.setattr(evaluate, "Evaluator", Measure)
    with pytest.raises(ValueError, match=r"^--out=.*file/x: .*file is no folder"):
        evaluate.evaluate_run(run, tmp_path / "file" / "x")
