"""Preparation: any mixture of files, any number of processes, any kill, the same bytes."""

import dataclasses
import fcntl
import hashlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from configs import prepare as prepare_config
from tests.preparation.video_files import read_index, write_sound, write_video
from tests.tiny import REPO
from tpdiff_jax.clips.bad_clips import REASONS, TooManyBadClipsError
from tpdiff_jax.clips.empty_prompt import EMPTY_PROMPT_FILE
from tpdiff_jax.data.video_records import VideoRecordsSpec
from tpdiff_jax.experiment.prepare_config import build_prepare
from tpdiff_jax.preparation.clip_encoder import PIXELS, ClipEncoder
from tpdiff_jax.prepare import prepare

SIZES: dict[str, Any] = {
    "num_frames": 8,
    "height": 32,
    "width": 48,
    "videos_per_shard": 3,
    "num_workers": 0,
    "test_share": 0.0,
    "max_bad_share": 1.0,
}


def make_spec(videos: pathlib.Path, **overrides: Any) -> Any:
    config = prepare_config.get_config()
    fields = SIZES | {"source": str(videos)} | overrides
    config.prepare.update(fields)
    return build_prepare(config)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Good videos of several codecs among bad ones, in the order of their names."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "00_good.mp4", 40)
    (folder / "00_good.txt").write_text("the first")
    (folder / "01_empty.mp4").write_bytes(b"")
    write_video(folder / "02_good.webm", 40, codec="libvpx-vp9")
    (folder / "03_text.mp4").write_text("this is no video\n" * 50)
    write_video(folder / "04_short.mp4", 4)
    write_video(folder / "05_good.avi", 40, codec="mpeg4")
    write_sound(folder / "06_sound.mp4")
    long = write_video(folder / "07_cut.webm", 90, codec="libvpx-vp9", options={"g": "12"})
    long.write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    for i in range(8, 14):
        write_video(folder / f"{i:02d}_good.mp4", 40 + i)
    return folder


BAD = {
    "01_empty.mp4": "empty_file",
    "03_text.mp4": "unreadable",
    "04_short.mp4": "too_short",
    "06_sound.mp4": "no_video_stream",
    "07_cut.webm": "truncated",
}


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file of a folder but leftovers of an interrupted write."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name[0] != "."}


@pytest.fixture(scope="module")
def prepared(videos: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(make_spec(videos), folder)
    return folder


def test_bad_videos_are_skipped_counted_and_listed_and_the_others_stored(
    prepared: pathlib.Path,
) -> None:
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert manifest["counts"]["clips"] == 9
    assert manifest["counts"]["videos_skipped"] == {reason: 1 for reason in BAD.values()}
    lines = [json.loads(line) for line in (prepared / "skipped.jsonl").read_text().splitlines()]
    assert {line["path"]: line["reason"] for line in lines} == BAD
    assert {line["what"] for line in lines} == {"video"}
    assert manifest["arrays"] == {"video": {"dtype": "uint8", "shape": [8, 32, 48, 3]}}
    assert [shard["num_clips"] for shard in manifest["shards"]] == [2, 1, 1, 3, 2]
    assert manifest["resize"].startswith("pillow-bicubic") and manifest["fps"] == 8.0


def test_stored_clips_show_the_frames_of_their_video(prepared: pathlib.Path) -> None:
    dataset = VideoRecordsSpec(folder=str(prepared))
    clips = [dataset.clip("train", 0, i) for i in range(9)]
    assert len({clip["name"] for clip in clips}) == 9
    for clip in clips:
        shown = [read_index(np.rint(127.5 * (frame + 1))) for frame in clip["video"]]
        assert set(np.diff(shown).tolist()) <= {3, 4}, "30 frames a second at 8 a second"
    captions = {clip["name"]: clip["caption"] for clip in clips}
    assert captions["00_good.mp4"] == "the first" and captions["02_good.webm"] == ""


def test_two_processes_write_what_one_writes(
    videos: pathlib.Path, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    prepare(make_spec(videos, num_workers=2), tmp_path)
    assert contents(tmp_path) == contents(prepared)


def test_two_hosts_write_what_one_writes(
    videos: pathlib.Path, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first = prepare(make_spec(videos, host_index=0, host_count=2), tmp_path)
    assert first is None and not (tmp_path / "manifest.json").exists()
    assert prepare(make_spec(videos, host_index=1, host_count=2), tmp_path) is not None
    assert contents(tmp_path) == contents(prepared)


def command(videos: pathlib.Path, folder: pathlib.Path, **overrides: Any) -> list[str]:
    fields = SIZES | {"source": str(videos)} | overrides
    flags = [f"--config.prepare.{name}={value}" for name, value in fields.items()]
    main = [sys.executable, "-m", "tpdiff_jax.main", "--mode=prepare"]
    return [*main, "--config=configs/prepare.py", f"--workdir={folder}", *flags]


def call(videos: pathlib.Path, folder: pathlib.Path, **overrides: Any) -> list[str]:
    """The same as a program without the command line's imports, so that many trials are quick."""
    code = (
        "import json, pathlib, sys\n"
        "from tpdiff_jax.prepare import prepare\n"
        "from tpdiff_jax.preparation.prepare_spec import PrepareSpec\n"
        "prepare(PrepareSpec(**json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))\n"
    )
    fields = dataclasses.asdict(make_spec(videos, **overrides))
    return [sys.executable, "-c", code, json.dumps(fields), str(folder)]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=REPO, capture_output=True, text=True, timeout=300, check=False
    )


def killed_run(arguments: list[str], folder: pathlib.Path, seed: int) -> bool:
    """Start, and kill at a random moment after the first file appears; whether it was alive.

    Its workers must end too.
    """
    with subprocess.Popen(
        arguments,
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a process group of its own, by which its workers are found
    ) as process:
        while process.poll() is None and not (folder / "prepare.json").exists():
            time.sleep(0.002)
        time.sleep(random.Random(seed).uniform(0.0, 0.4))
        was_alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while is_group_alive(process.pid):
        assert time.monotonic() < deadline, "orphaned workers"
        time.sleep(0.05)
    return was_alive


def is_group_alive(group: int) -> bool:
    """Whether any process of the group still runs; ended ones may wait to be collected."""
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended in this moment
            continue
        if int(process_group) == group and state != "Z":
            return True
    return False


def check_kills(
    videos: pathlib.Path,
    prepared: pathlib.Path,
    folder: pathlib.Path,
    trials: int,
    workers: int,
    read: Callable[[pathlib.Path], Any] = contents,
    **overrides: Any,
) -> None:
    num_killed = 0
    for trial in range(trials):
        target = folder / str(trial)
        arguments = call(videos, target, num_workers=workers, **overrides)
        num_killed += killed_run(arguments, target, trial)
        again = run(arguments)
        assert again.returncode == 0, again.stderr
        assert read(target) == read(prepared)
    assert num_killed > 0, "the kills must come before the end"


def test_killed_anywhere_the_same_call_writes_the_same_bytes(
    videos: pathlib.Path, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    check_kills(videos, prepared, tmp_path, trials=4, workers=0)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_many_kills_leave_no_trace(
    videos: pathlib.Path, prepared: pathlib.Path, tmp_path: pathlib.Path, workers: int
) -> None:
    check_kills(videos, prepared, tmp_path, trials=20, workers=workers)


def test_finished_shards_are_not_made_again(videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    prepare(make_spec(videos), tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.array_record")}
    (tmp_path / "origin.json").write_text("who made them")
    prepare(make_spec(videos), tmp_path)
    assert (tmp_path / "origin.json").exists(), "they are that command's still"
    removed = sorted(before)[2]
    (tmp_path / f"{removed}.json").unlink()  # as a kill before the note leaves it
    prepare(make_spec(videos), tmp_path)
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.array_record")}
    assert [name for name in before if before[name] != after[name]] == [removed]
    assert not (tmp_path / "origin.json").exists(), "another command made a part"


def test_too_many_bad_videos_stop_the_run_with_one_line_and_a_code(
    videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = run(command(videos, tmp_path / "out", max_bad_share=0.2))
    assert out.returncode == 7, out.stderr
    (line,) = [s for s in out.stderr.splitlines() if s.startswith("tpdiff_jax: error:")]
    assert "3 of 14 videos are bad" in line and "prepare.max_bad_share=0.2" in line
    assert "empty_file 1, unreadable 1, too_short 1" in line
    assert "Traceback" not in out.stderr
    listed = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(text)["path"] for text in listed] == list(BAD)[:3]
    # With a higher limit the same folder is gone on with, to the same end.
    prepare(make_spec(videos, max_bad_share=0.5), tmp_path / "out")


def test_bad_rows_count_and_stop_like_bad_videos(
    videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("video,caption\n00_good.mp4,a\n/etc/passwd,b\nnot_there.mp4,c\n")
    spec = make_spec(videos, table=str(table), max_bad_share=0.5)
    with pytest.raises(TooManyBadClipsError, match="2 of 3 rows .* absolute_path 1, missing_file"):
        prepare(spec, tmp_path / "a")
    left_out = make_spec(videos, table=str(table), max_bad_share=0.5, missing_files="leave_out")
    manifest = prepare(left_out, tmp_path / "b")
    assert manifest is not None
    assert manifest.fields["counts"]["rows_skipped"] == {"absolute_path": 1}
    assert manifest.fields["counts"]["rows_left_out"] == {"missing_file": 1}
    lines = (tmp_path / "b" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["absolute_path", "missing_file"]


def test_curation_and_splits_are_fixed_by_the_table(
    videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    names = ["00_good.mp4", "02_good.webm", *(f"{i:02d}_good.mp4" for i in range(8, 14))]
    rows = [f"{name},{i},{i},{'test' if i == 7 else 'train'}" for i, name in enumerate(names)]
    table = tmp_path / "t.csv"
    table.write_text("video,motion score,aesthetic score,split\n" + "\n".join(rows) + "\n")
    spec = make_spec(videos, table=str(table), curation="paper", top_both=0.4)
    manifest = prepare(spec, tmp_path / "out")
    assert manifest is not None  # 0.4 x 8 = 3.2: four are not beaten by more than three
    assert (manifest.num_clips("train"), manifest.num_clips("test")) == (3, 1)
    dataset = VideoRecordsSpec(folder=str(tmp_path / "out"))
    assert {dataset.clip("train", 0, i)["name"] for i in range(3)} == set(names[4:7])
    with pytest.raises(ValueError, match=r"prepare\.motion_column"):
        prepare(make_spec(videos, curation="paper"), tmp_path / "unscored")


def test_another_preparation_in_the_same_folder_is_refused_with_the_difference(
    videos: pathlib.Path, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match=r"settings\.fps: was 8\.0, now 4\.0"):
        prepare(make_spec(videos, fps=4.0), prepared)
    with pytest.raises(ValueError, match=r"encoder\.video\.name: was 'pixels', now 'x'"):
        other = PIXELS._replace(facts={"video": {"name": "x"}, "text": {"name": "none"}})
        prepare(make_spec(videos), prepared, other)
    (tmp_path / "mine.txt").write_text("something else")
    with pytest.raises(ValueError, match=r"not empty: mine\.txt"):
        prepare(make_spec(videos), tmp_path)


def encode_text(caption: str) -> dict[str, np.ndarray]:
    text = np.full((4, 6), len(caption), np.float16)
    return {"text": text, "text_mask": np.arange(4) < len(caption)}


def encode_clip(frames: np.ndarray, caption: str) -> dict[str, np.ndarray]:
    return {"video": frames[:, ::8, ::8].astype(np.float32) / 255, **encode_text(caption)}


@pytest.fixture(scope="module")
def encoded(videos: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("encoded")
    encoder = ClipEncoder({"name": "test"}, encode_clip, lambda: encode_text(""))
    prepare(make_spec(videos), folder, encoder)
    return folder


def test_what_an_encoder_adds_is_stored_and_becomes_the_condition(encoded: pathlib.Path) -> None:
    dataset = VideoRecordsSpec(folder=str(encoded))
    assert dataset.frame_shape == (4, 6, 3) and not dataset.is_pixels
    assert dataset.cond_shapes["text"] == ((4, 6), np.float16)
    clips = {c["name"]: c for c in (dataset.clip("train", 0, i) for i in range(9))}
    clip = clips["00_good.mp4"]
    assert clip["text"][0, 0] == len("the first") and clip["text_mask"].all()
    assert 0 <= clip["video"].min() and clip["video"].max() <= 1, "latents are not rescaled"
    with pytest.raises(ValueError, match=r"data\.horizontal_flip"):
        VideoRecordsSpec(folder=str(encoded), horizontal_flip=True)


def test_the_empty_prompt_is_stored_once_and_known_by_its_hash(
    encoded: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    null = VideoRecordsSpec(folder=str(encoded)).null_cond
    assert {name: array.tolist() for name, array in null.items()} == {
        "text": [[0.0] * 6] * 4,
        "text_mask": [False] * 4,
    }
    for path in encoded.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / EMPTY_PROMPT_FILE).write_bytes((encoded / EMPTY_PROMPT_FILE).read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{EMPTY_PROMPT_FILE} is not the file"):
        _ = VideoRecordsSpec(folder=str(tmp_path)).null_cond
    forged = b"no record"
    (tmp_path / EMPTY_PROMPT_FILE).write_bytes(forged)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["null_condition"]["sha256"] = hashlib.sha256(forged).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="not a clip record"):
        _ = VideoRecordsSpec(folder=str(tmp_path)).null_cond


def test_an_empty_prompt_of_other_arrays_is_refused(
    videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match="of the empty prompt"):
        prepare(make_spec(videos), tmp_path, ClipEncoder({"name": "test"}, encode_clip))


def test_sample_videos_show_what_held_out_clips_say(encoded: pathlib.Path) -> None:
    dataset = VideoRecordsSpec(folder=str(encoded))
    requests = dataset.requests(30)
    assert requests.num_videos == len(requests.captions) == 30
    assert {name: array.shape[1:] for name, array in requests.cond.items()} == {
        "label": (0,),
        "text": (4, 6),
        "text_mask": (4,),
    }
    lengths = [len(caption) for caption in requests.captions]
    assert requests.cond["text"][:, 0, 0].tolist() == lengths and max(lengths) == len("the first")


def test_an_encoder_that_changes_its_mind_is_refused(
    videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shapes = iter(range(1, 99))

    def encode(frames: np.ndarray, caption: str) -> dict[str, np.ndarray]:
        return {"video": frames[: next(shapes)]}

    with pytest.raises(ValueError, match="the arrays of the first"):
        prepare(make_spec(videos), tmp_path, ClipEncoder({"name": "test"}, encode))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", ""),
        ("missing_files", "ignore"),
        ("curation", "best"),
        ("num_frames", 0),
        ("height", 0),
        ("num_workers", -1),
        ("text_tokens", -1),
        ("videos_per_shard", 0),
        ("fps", 0.0),
        ("max_seconds", float("inf")),
        ("test_share", 1.5),
        ("max_bad_share", -0.1),
        ("top_both", 0.0),
        ("host_index", 1),
    ],
)
def test_a_wrong_field_is_named(videos: pathlib.Path, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"prepare\.{field}"):
        make_spec(videos, **{field: value})


def test_two_runs_in_one_folder_do_not_mix(videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with (tmp_path / ".host-0-of-1.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="by another process"):
            prepare(make_spec(videos), tmp_path)
    assert prepare(make_spec(videos), tmp_path) is not None


def test_nothing_to_prepare_is_said(videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"prepare\.source"):
        prepare(make_spec(tmp_path / "none"), tmp_path / "out")
    (tmp_path / "none" / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="no clip is left"):
        prepare(make_spec(tmp_path / "none"), tmp_path / "out2")


def test_every_reason_is_explained() -> None:
    page = (REPO / "docs" / "clips.md").read_text()
    assert [reason for reason in REASONS if f"`{reason}`" not in page] == []
