"""Clips of several shapes, from video files to a trained network."""

import collections
import json
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from configs import video_folder
from tests.preparation.video_files import write_video
from tests.test_prepare import check_kills, contents, encode_clip, encode_text, make_spec
from tests.test_train import Crash, assert_same_state, crash_after, final_state
from tests.tiny import SIZES, set_field
from tpdiff_jax import train
from tpdiff_jax.data import VideoRecordsSpec
from tpdiff_jax.data.step_schedule import ClipsOfStep, steps_of_round, turn_of_step
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, open_run
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.optim.guard import BadStep, TooManyBadSteps
from tpdiff_jax.preparation.clip_encoder import PIXELS, ClipEncoder
from tpdiff_jax.prepare import prepare
from tpdiff_jax.run_log.json_lines import read_metrics
from tpdiff_jax.sample import sample_run
from tpdiff_jax.train_step import draw
from tpdiff_jax.training import step_programs
from tpdiff_jax.training.bad_steps import describe_stop
from tpdiff_jax.training.initial_state import abstract_train_state, run_keys

WIDE, TALL, LONG = "8x32x48", "4x48x32", "16x32x48"
FIELDS: dict[str, Any] = {"buckets": (WIDE, TALL)}
NUM_WIDE, NUM_TALL = 5, 3
TRAINING: dict[str, Any] = {
    **{name: value for name, value in SIZES.items() if not name.startswith("data.")},
    "pyramid.frame_strides": (2, 1),
    "train.batch_size": 4,
    "alignment.group_size": 4,
    "sample.num_steps": 2,
    "sample.batch_size": 2,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Wide and tall videos in turn, and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(NUM_WIDE):
        write_video(folder / f"{2 * i}_wide.mp4", 40)
    for i in range(NUM_TALL):
        write_video(folder / f"{2 * i + 1}_tall.mp4", 40, size=(96, 64))
    (folder / "3_none.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def clips(videos: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("clips")
    prepare(make_spec(videos, **FIELDS), folder)
    return folder


def all_contents(folder: pathlib.Path) -> dict[str, Any]:
    """Every file of the folder and its buckets."""
    buckets = sorted(path for path in folder.iterdir() if path.is_dir())
    here = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name[0] != "."}
    return {"": here} | {path.name: contents(path) for path in buckets}


def make_config(clips: pathlib.Path, **fields: Any) -> Any:
    config = video_folder.get_config()
    for name, value in (TRAINING | {"data.folder": str(clips)} | fields).items():
        set_field(config, name, value)
    return config


def test_every_bucket_is_a_folder_of_its_own_and_one_manifest_names_them(
    clips: pathlib.Path,
) -> None:
    index = json.loads((clips / "manifest.json").read_text())
    assert [(entry["name"], entry["clips"]["train"]) for entry in index["buckets"]] == [
        (WIDE, NUM_WIDE),
        (TALL, NUM_TALL),
    ]
    assert index["counts"]["clips"] == NUM_WIDE + NUM_TALL
    assert index["counts"]["videos_skipped"] == {"empty_file": 1}
    for name, shape, number in ((WIDE, (8, 32, 48, 3), NUM_WIDE), (TALL, (4, 48, 32, 3), NUM_TALL)):
        dataset = VideoRecordsSpec(folder=str(clips / name))
        shown = [dataset.clip("train", 0, i) for i in range(number)]
        assert {clip["video"].shape for clip in shown} == {shape}
        assert {clip["name"].split("_")[1] for clip in shown} == {
            "wide.mp4" if name == WIDE else "tall.mp4"
        }
    (line,) = (clips / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "3_none.mp4"
    with pytest.raises(ValueError, match=f"has buckets; open one: .*{WIDE}"):
        VideoRecordsSpec(folder=str(clips))


def test_stopped_between_any_two_clips_and_on_two_hosts_the_bytes_are_the_same(
    videos: pathlib.Path, clips: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for number in (0, 2, 4, 4):  # of clips; three videos a shard
        left = iter(range(number))

        def encode(frames: np.ndarray, caption: str, left: Iterator[int] = left) -> Any:
            if next(left, None) is None:
                raise Crash
            return PIXELS.encode(frames, caption)

        with pytest.raises(Crash):
            prepare(make_spec(videos, **FIELDS), tmp_path / "a", PIXELS._replace(encode=encode))
    assert not (tmp_path / "a" / "manifest.json").exists()
    prepare(make_spec(videos, **FIELDS), tmp_path / "a")
    assert all_contents(tmp_path / "a") == all_contents(clips)
    for host in range(2):
        prepare(make_spec(videos, host_index=host, host_count=2, **FIELDS), tmp_path / "b")
    assert all_contents(tmp_path / "b") == all_contents(clips)


@pytest.mark.slow
def test_killed_anywhere_the_buckets_have_the_same_bytes(
    videos: pathlib.Path, clips: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    check_kills(videos, clips, tmp_path, trials=6, workers=2, read=all_contents, **FIELDS)


def test_latents_and_encoded_captions_go_to_the_buckets_of_their_frames(
    videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    encoder = ClipEncoder({"name": "test"}, encode_clip, lambda: encode_text(""))
    prepare(make_spec(videos, **FIELDS), tmp_path, encoder)
    for name, shape in ((WIDE, (8, 4, 6, 3)), (TALL, (4, 6, 4, 3))):
        dataset = VideoRecordsSpec(folder=str(tmp_path / name))
        assert dataset.clip("train", 0, 0)["video"].shape == shape and not dataset.is_pixels
        assert dataset.cond_shapes["text"] == ((4, 6), np.float16)
        np.testing.assert_array_equal(dataset.null_cond["text"], encode_text("")["text"])


def test_a_bucket_without_training_clips_is_left_out(
    videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    manifest = prepare(make_spec(videos, buckets=(LONG, WIDE, TALL)), tmp_path / "a")
    assert manifest is not None and list(manifest.buckets) == [WIDE, TALL], "all are too short"
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="no training clip is left"):
        prepare(make_spec(tmp_path / "none", **FIELDS), tmp_path / "b")


@pytest.mark.parametrize("buckets", [("16x96",), ("8x32x48", "8x32x48"), ("8x0x48",), (8,)])
def test_wrong_buckets_are_named(videos: pathlib.Path, buckets: Any) -> None:
    with pytest.raises(ValueError, match=r"prepare\.buckets"):
        make_spec(videos, buckets=buckets)


def test_the_identity_of_one_shape_is_what_it_was(videos: pathlib.Path) -> None:
    plain, several = make_spec(videos), make_spec(videos, **FIELDS)
    assert "buckets" not in plain.settings and plain.settings["num_frames"] == 8
    assert several.settings["buckets"] == [WIDE, TALL] and "height" not in several.settings


def test_an_exchanged_bucket_is_refused(clips: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for path in clips.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(clips)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    manifest = tmp_path / TALL / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"fps": 8.0', '"fps": 9.0', 1))
    with pytest.raises(ValueError, match=f"{TALL} is not the bucket that"):
        build_experiment(make_config(tmp_path))
    index = tmp_path / "manifest.json"
    index.write_text(index.read_text().replace(TALL, "../elsewhere"))
    with pytest.raises(ValueError, match="'../elsewhere' is no bucket"):
        build_experiment(make_config(tmp_path))


def test_an_experiment_has_one_network_and_a_pyramid_for_every_shape(clips: pathlib.Path) -> None:
    experiment = build_experiment(make_config(clips))
    wide, tall = experiment.shapes
    assert [clips.bucket for clips in (wide, tall)] == [WIDE, TALL]
    assert experiment.pyramid is wide.pyramid and experiment.dataset is wide.dataset
    assert [stage.num_frames for stage in tall.pyramid.stages] == [2, 4]
    assert [s.t_start for s in wide.pyramid.stages] == [s.t_start for s in tall.pyramid.stages]
    tokens = [experiment.network.num_tokens(clips.pyramid.shape) for clips in (wide, tall)]
    assert tokens[1] * 2 == tokens[0] == 8 * 4 * 6
    names = [f"{WIDE} stage 0", f"{WIDE} stage 1", f"{TALL} stage 0", f"{TALL} stage 1"]
    assert [program.name for program in experiment.programs] == names
    for part in (WIDE, TALL):
        fact = VideoRecordsSpec(folder=str(clips / part)).fingerprint()["manifest_sha256"]
        assert experiment.identity.dataset[f"{part}.manifest_sha256"] == fact
    flops = [program.train_flops for program in experiment.programs]
    expected = 5 / 8 * (flops[0] + flops[1]) / 2 + 3 / 8 * (flops[2] + flops[3]) / 2
    assert experiment.mean_over_steps(flops) == pytest.approx(expected)
    alone = experiment.of_bucket(TALL)
    assert alone.shapes == (tall,) and alone.task.pyramid is tall.pyramid
    with pytest.raises(ValueError, match=f"--bucket=8x8x8 must be .*{WIDE}, {TALL}"):
        experiment.of_bucket("8x8x8")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.patch_size", 6, f"bucket {WIDE} of data.folder: model.patch_size"),
        ("pyramid.frame_strides", (8, 1), f"bucket {TALL} of data.folder: .*frame_strides"),
    ],
)
def test_a_shape_that_does_not_suit_is_refused_by_its_buckets_name(
    clips: pathlib.Path, field: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_experiment(make_config(clips, **{field: value}))


def test_what_only_tracing_finds_is_refused_by_the_programs_name(
    clips: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(*args: Any) -> Any:
        raise ValueError("more frames than positions")

    experiment = build_experiment(make_config(clips))
    monkeypatch.setattr(step_programs, "trace_gradient", too_long)
    with pytest.raises(ValueError, match=f"{WIDE} stage 0: more frames than positions"):
        step_programs.compile_steps(experiment, abstract_train_state(experiment), run_keys(0)[1])


def test_rounds_give_each_bucket_its_share_and_use_its_clips_one_after_another() -> None:
    steps = steps_of_round((300, 100))
    assert steps == (150, 50) and steps_of_round((7,)) == (1,)
    assert steps_of_round((10**6, 1)) == (200, 1), "a small bucket has a step a round"
    turns = [turn_of_step(5, step, steps) for step in range(600)]
    for start in (0, 200, 400):
        assert collections.Counter(t.bucket for t in turns[start : start + 200]) == {0: 150, 1: 50}
    for bucket in range(2):
        ranks = [turn.rank for turn in turns if turn.bucket == bucket]
        assert ranks == list(range(len(ranks)))
    assert [t.bucket for t in turns[:200]] != [t.bucket for t in turns[200:400]]
    assert turn_of_step(5, 10**9, steps) == turn_of_step(5, 10**9, steps)
    assert [turn_of_step(0, step, (1,)).rank for step in (0, 7)] == [0, 7]


def test_hosts_share_the_batches_of_every_bucket() -> None:
    fields: dict[str, Any] = {"seed": 2, "stage_probs": (0.5, 0.5), "clips_per_step": 4}
    fields["bucket_steps"] = (150, 50)
    whole = ClipsOfStep(rows=((0, 1, 2, 3), (0, 1)), **fields)
    left, right = (ClipsOfStep(rows=rows, **fields) for rows in (((0, 1), (0,)), ((2, 3), (1,))))
    seen: collections.Counter[int] = collections.Counter()
    for step in range(100):
        numbers, bucket = whole(step), turn_of_step(2, step, (150, 50)).bucket
        assert numbers == left(step) + right(step)
        assert {number % 2 for number in numbers} == {bucket}
        seen.update(numbers)
    assert max(seen.values()) == 1


def test_a_steps_batch_has_the_shape_of_its_bucket_wherever_the_run_starts(
    clips: pathlib.Path,
) -> None:
    experiment = build_experiment(make_config(clips, **{"data.num_threads": 0}))
    stream, videos = train.iterate_batches(experiment, 0), []
    for step in range(8):
        videos.append(np.asarray(next(stream)["video"]))
        clips = experiment.programs[experiment.program_of_step(step)].clips
        assert videos[-1].shape == (4, *clips.video_shape)
    assert len({video.shape for video in videos}) == 2
    resumed = train.iterate_batches(experiment, 5)
    for video in videos[5:]:
        np.testing.assert_array_equal(np.asarray(next(resumed)["video"]), video)
    wide = [video for video in videos if video.shape[1] == 8]
    expected = [experiment.dataset.clip("train", 0, i)["video"] for i in range(4 * len(wide))]
    np.testing.assert_array_equal(np.concatenate(wide), expected)


@pytest.mark.slow
def test_a_run_compiles_one_step_a_bucket_and_stage_and_resumes_bit_for_bit(
    clips: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(clips, **{"train.num_steps": 8, "train.log_every_steps": 1})
    experiment = build_experiment(config)
    compiled: collections.Counter[str] = collections.Counter()
    finished = "Finished XLA compilation of jit("
    handler = logging.Handler()
    handler.addFilter(lambda record: record.getMessage().startswith(f"{finished}train"))
    handler.emit = lambda record: compiled.update(  # type: ignore[method-assign]
        [record.getMessage().removeprefix(finished).split(")")[0]]
    )
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    jax.config.update("jax_log_compiles", True)  # for all threads, unlike jax.log_compiles()
    try:
        functions = train.compile_steps(
            experiment, abstract_train_state(experiment), run_keys(0)[1]
        )
        monkeypatch.setattr(train, "compile_steps", lambda *_: functions)
        train.train(experiment, tmp_path / "whole")
    finally:
        jax.config.update("jax_log_compiles", False)
        logger.removeHandler(handler)
    names = [f"train_{program.name}".replace(" ", "_") for program in experiment.programs]
    assert compiled == dict.fromkeys([*names, "train_update"], 1)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(train, "iterate_batches", crash_after(5))
        train.train(experiment, tmp_path / "cut")
    train.train(experiment, tmp_path / "cut")
    whole, cut = (final_state(config, tmp_path / name) for name in ("whole", "cut"))
    assert_same_state(cut.state, whole.state)
    lines = [line for line in read_metrics(tmp_path / "cut" / "metrics.jsonl") if "loss" in line]
    programs = [experiment.program_of_step(step) for step in range(8)]
    assert [2 * line["bucket"] + line["stage"] for line in lines] == programs
    flops = sum(experiment.programs[program].train_flops for program in programs)
    assert lines[-1]["train_flops"] == pytest.approx(flops)
    results = json.loads((tmp_path / "cut" / "results.json").read_text())
    assert [table["name"] for table in results["buckets"]] == [WIDE, TALL]
    for bucket, table in enumerate(results["buckets"]):
        for stage, row in enumerate(table["stages"]):
            assert (row["step_seconds"] is not None) == (2 * bucket + stage in programs)

    run = open_run(tmp_path / "cut", overrides=GenerateFlags(bucket=TALL, num_videos=1))
    assert [clips.bucket for clips in run.experiment.shapes] == [TALL]
    folder = sample_run(run, SampleFlags(), tmp_path / "tall")
    assert sorted(path.name for path in folder.iterdir()) == ["0000.mp4", "grid.gif"]
    with pytest.raises(ValueError, match="--bucket=square must be"):
        open_run(tmp_path / "cut", overrides=GenerateFlags(bucket="square"))


def test_what_a_run_that_stopped_tells_of_a_step_are_the_times_of_its_own_bucket(
    clips: pathlib.Path,
) -> None:
    config = make_config(clips)
    with config.unlocked():
        config.pyramid.time_shift_shape = (1, 32, 32)  # sqrt(12) and sqrt(6)
    experiment = build_experiment(config)
    _, key = run_keys(experiment.train.seed)
    told = set()
    for step in range(20):
        program = experiment.programs[experiment.program_of_step(step)]
        bad = BadStep(step, program.stage, float("nan"), float("nan"), is_spike=False)
        (row,) = describe_stop(experiment, key, TooManyBadSteps(1, (bad,)))["steps"]
        step_key = jax.random.fold_in(key, step)
        drawn = draw(program.task, program.stage, program.batch_size, step_key).t
        assert row["bucket"] == program.clips.bucket
        np.testing.assert_allclose([row["t"]["min"], row["t"]["max"]], [drawn.min(), drawn.max()])
        told.add(row["bucket"])
    assert told == {WIDE, TALL}
