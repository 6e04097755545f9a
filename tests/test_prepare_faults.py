"""Preparation and export on a full disk, around damaged notes, and refused."""

import json
import pathlib
import resource
import types
from typing import Any

import pytest

from tests.preparation.video_files import write_video
from tests.test_prepare import contents, make_spec
from tpdiff_jax import export, main
from tpdiff_jax.clips.bad_clips import TooManyBadClipsError
from tpdiff_jax.command_line import ExitCode
from tpdiff_jax.files.durable import WriteError
from tpdiff_jax.prepare import prepare

SHARD = "train-00001-of-00002.array_record"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(4):
        write_video(folder / f"{i}.mp4", 40)
    return folder


def spec_of(videos: pathlib.Path, **overrides: Any) -> Any:
    return make_spec(videos, **({"videos_per_shard": 2} | overrides))


@pytest.fixture(scope="module")
def expected(videos: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    prepare(spec_of(videos), folder)
    return contents(folder)


def test_a_full_disk_is_code_6_and_with_room_again_the_same_bytes_are_made(
    videos: pathlib.Path,
    expected: dict[str, bytes],
    tmp_path: pathlib.Path,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # less than a shard
    try:
        with pytest.raises(WriteError, match=r"array_record could not be written \(") as error:
            prepare(spec_of(videos), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert main.exit_code(error.value) == ExitCode.SAVE_FAILED
    assert not [p for p in tmp_path.iterdir() if "array_record" in p.name], "nothing half written"
    prepare(spec_of(videos), tmp_path)
    assert contents(tmp_path) == expected


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        '{"num_bytes": "many"}',
        '{"name": 1, "split": "train", "num_clips": -1, "num_bytes": 3, "sha256": "", '
        '"arrays": {}, "skipped": [{"path": "a", "reason": "corrupt", "detail": "", "x": 1}]}',
    ],
)
def test_a_shard_of_a_damaged_note_is_made_again(
    note: str, videos: pathlib.Path, expected: dict[str, bytes], tmp_path: pathlib.Path
) -> None:
    for name, content in expected.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / f"{SHARD}.json").write_text(note)
    prepare(spec_of(videos), tmp_path)
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"settings":' * 50_000])
def test_an_odd_identity_is_one_line(
    text: str, videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "prepare.json").write_text(text)
    with pytest.raises(ValueError, match=r"prepare\.json") as error:
        prepare(spec_of(videos), tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_refused_preparation_claims_no_folder(
    videos: pathlib.Path, expected: dict[str, bytes], tmp_path: pathlib.Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("video\n0.mp4\n../up.mp4\n/etc/passwd\n")
    folder = tmp_path / "clips"
    with pytest.raises(TooManyBadClipsError, match=r"2 of 3 rows .*skipped\.jsonl"):
        prepare(spec_of(videos, table=str(table), max_bad_share=0.1), folder)
    assert [path.name for path in folder.iterdir()] == ["skipped.jsonl"]
    prepare(spec_of(videos), folder)  # mended: another table, or none
    assert contents(folder) == expected
    with pytest.raises(ValueError, match="holds another preparation"):
        prepare(spec_of(videos, table=str(table), max_bad_share=0.1), folder)
    assert contents(folder) == expected, "and its list of what was skipped stays"
    table.write_text("video\nnone.mp4\n")
    with pytest.raises((ValueError, TooManyBadClipsError)):
        prepare(spec_of(videos, table=str(table), missing_files="leave_out"), tmp_path / "never")
    assert not (tmp_path / "never" / "prepare.json").exists()


def test_an_export_on_a_full_disk_leaves_no_weights_and_a_full_folder_is_refused_before(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(folder: pathlib.Path, *_: Any) -> None:
        for part in ("unet", "adapter"):
            (folder / part).mkdir(parents=True)
            (folder / part / "model.safetensors").write_bytes(b"")
        raise WriteError(28, "the second part could not be written")

    published = types.SimpleNamespace(layouts=("separate",), save=save)
    monkeypatch.setattr(export, "PUBLISHED", {"animatediff": published})
    model = types.SimpleNamespace(name="animatediff")
    experiment = types.SimpleNamespace(
        config=types.SimpleNamespace(model=model),
        weights=None,
        network=types.SimpleNamespace(config=None),
    )
    run: Any = types.SimpleNamespace(experiment=experiment, workdir=tmp_path, step=3, params={})
    with pytest.raises(WriteError):
        export.export_run(run, None, "float32", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    (tmp_path / "out" / "adapter" / "model.safetensors").write_bytes(b"mine")
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match="already holds safetensors; choose another folder"):
        export.export_run(run, None, "float32", tmp_path / "out")
    assert {path for path in tmp_path.rglob("*")} == before
    assert (tmp_path / "out" / "adapter" / "model.safetensors").read_bytes() == b"mine"


def test_the_notes_of_a_prepared_folder_are_those_that_are_read(
    expected: dict[str, bytes],
) -> None:
    note = json.loads(expected[f"{SHARD}.json"])
    assert note["name"] == SHARD and note["num_clips"] == 2
