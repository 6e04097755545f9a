"""Preparation on ray: any number of workers, any death of one, the same bytes as one process."""

import dataclasses
import json
import pathlib
import signal
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from tests.preparation.video_files import write_video
from tests.ray_encoders import (
    DEATHS,
    crash_at_fifth,
    open_changing,
    open_dying,
    open_other,
    open_pixels,
)
from tests.test_prepare import command, contents, make_spec, run
from tests.tiny import REPO
from tpdiff_jax.clips.bad_clips import TooManyBadClipsError
from tpdiff_jax.preparation import ray_shards
from tpdiff_jax.preparation.clip_encoder import PIXELS
from tpdiff_jax.preparation.decode_pool import DecodePool
from tpdiff_jax.preparation.prepare_spec import PrepareSpec
from tpdiff_jax.preparation.ray_shards import RETRIES, RayEngine, make_engine, needed_of_node
from tpdiff_jax.preparation.video_decode import ClipFormat
from tpdiff_jax.prepare import prepare

BAD = {"3.mp4": "empty_file", "7.mp4": "unreadable"}
NUM_SHARDS = 4  # ten videos, three a shard


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Ten videos; at the fifth and the ninth a dying encoder is allowed to die."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(10):
        write_video(folder / f"{i}.mp4", 40 + i)
    (folder / "4.txt").write_text("1:fifth")
    (folder / "8.txt").write_text("2:ninth")
    (folder / "3.mp4").write_bytes(b"")
    (folder / "7.mp4").write_text("no video\n" * 50)
    return folder


@pytest.fixture(scope="module")
def spec(videos: pathlib.Path) -> PrepareSpec:
    return make_spec(videos)


@pytest.fixture(scope="module")
def prepared(spec: PrepareSpec, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(spec, folder)
    return folder


# ---- without ray: its interface, in this process


class LastFirst:
    """Ray's calls that preparation uses, in this process; the task that came last is done first."""

    exceptions = types.SimpleNamespace(RayTaskError=KeyError, RayError=LookupError)

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.most_waiting = 0

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, function: Any) -> Any:
        def submit(*args: Any) -> Any:
            self.waiting.append(lambda: function(*args))
            self.most_waiting = max(self.most_waiting, len(self.waiting))
            return self.waiting[-1]

        return types.SimpleNamespace(options=lambda **_: types.SimpleNamespace(remote=submit))

    def wait(self, tasks: list[Any]) -> tuple[list[Any], list[Any]]:
        assert tasks == self.waiting
        return [tasks[-1]], tasks[:-1]

    def get(self, task: Any) -> Any:
        self.waiting.remove(task)
        return task()


@pytest.fixture()
def last_first(monkeypatch: pytest.MonkeyPatch) -> LastFirst:
    fake = LastFirst()
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_the_order_in_which_shards_are_done_leaves_no_trace(
    spec: PrepareSpec,
    prepared: pathlib.Path,
    tmp_path: pathlib.Path,
    last_first: LastFirst,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for least, per_cpu, most in ((64, 4, NUM_SHARDS), (1, 1, 2), (1, 0, 1)):
        last_first.most_waiting = 0
        monkeypatch.setattr(ray_shards, "_LEAST_AHEAD", least)
        monkeypatch.setattr(ray_shards, "_AHEAD_PER_CPU", per_cpu)
        folder = tmp_path / f"{most}"
        assert prepare(spec, folder, engine=RayEngine("", open_pixels)) is not None
        assert contents(folder) == contents(prepared)
        assert not list(folder.glob(".*.array_record*")), "unfinished files"
        assert last_first.most_waiting == most
    lines = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert {line["path"]: line["reason"] for line in lines} == BAD


def test_several_shapes_too(
    spec: PrepareSpec, tmp_path: pathlib.Path, last_first: LastFirst
) -> None:
    several = dataclasses.replace(spec, buckets=("8x32x48", "4x48x32"))
    prepare(several, tmp_path / "here")
    prepare(several, tmp_path / "ray", engine=RayEngine("", open_pixels))
    for folder in (".", "8x32x48"):
        here, by_ray = (
            {p.name: p.read_bytes() for p in (tmp_path / who / folder).iterdir() if p.is_file()}
            for who in ("here", "ray")
        )
        assert {k: v for k, v in here.items() if k[0] != "."} == {
            k: v for k, v in by_ray.items() if k[0] != "."
        }


def test_it_goes_on_with_what_either_form_has_left(
    spec: PrepareSpec, prepared: pathlib.Path, tmp_path: pathlib.Path, last_first: LastFirst
) -> None:
    folder, engine = tmp_path / "out", RayEngine("", open_pixels)
    prepare(spec, folder, engine=engine)
    shards = sorted(folder.glob("*.array_record"))
    assert len(shards) == NUM_SHARDS
    for removed, how in ((shards[1], engine), (shards[2], None), (shards[0], engine)):
        before = {path: path.stat().st_mtime_ns for path in shards}
        removed.with_name(f"{removed.name}.json").unlink()  # as a kill before the note leaves it
        (folder / f".{removed.name}.0123.tmp").write_bytes(b"half a shard")
        prepare(spec, folder, engine=how)
        changed = [path for path in shards if path.stat().st_mtime_ns != before[path]]
        assert changed == [removed]
        assert contents(folder) == contents(prepared)
    assert not list(folder.glob(".*.array_record*"))


@pytest.mark.parametrize(("ahead", "num_made"), [(64, NUM_SHARDS - 1), (2, 2), (1, 1)])
def test_a_shard_given_up_costs_none_that_is_on_its_way(
    spec: PrepareSpec,
    prepared: pathlib.Path,
    tmp_path: pathlib.Path,
    last_first: LastFirst,
    monkeypatch: pytest.MonkeyPatch,
    ahead: int,
    num_made: int,
) -> None:
    """Made first of all, the one given up ends the command last, and nothing new is begun."""
    monkeypatch.setattr(ray_shards, "_LEAST_AHEAD", ahead)
    monkeypatch.setattr(ray_shards, "_AHEAD_PER_CPU", 0)
    given_up = f"train-{(num_made if ahead > 1 else 1):05d}-"
    remote = last_first.remote

    def dying(spec: PrepareSpec, folders: Any, job: Any, *rest: Any) -> Any:
        if job.name.startswith(given_up):
            raise LookupError("the worker died\nand pages of ray's own")
        return ray_shards.make_on_node(spec, folders, job, *rest)

    monkeypatch.setattr(last_first, "remote", lambda _: remote(dying))
    with pytest.raises(ValueError, match=rf"{given_up}.* was given up: .*: the worker died$"):
        prepare(spec, tmp_path, engine=RayEngine("", open_pixels))
    assert len(list(tmp_path.glob("train-*.array_record"))) == num_made
    monkeypatch.setattr(last_first, "remote", remote)
    prepare(spec, tmp_path, engine=RayEngine("", open_pixels))
    assert contents(tmp_path) == contents(prepared)


def test_too_many_bad_videos_stop_it(
    spec: PrepareSpec, tmp_path: pathlib.Path, last_first: LastFirst
) -> None:
    strict = dataclasses.replace(spec, max_bad_share=0.1, bad_allowed=0)
    with pytest.raises(TooManyBadClipsError, match=r"2 of 10 videos are bad.*prepare\.max_bad"):
        prepare(strict, tmp_path, engine=RayEngine("", open_pixels))
    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [(line["path"], line["reason"]) for line in lines] == list(BAD.items())


def test_a_crash_of_the_decoder_costs_its_video_only(
    spec: PrepareSpec,
    tmp_path: pathlib.Path,
    last_first: LastFirst,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pool(
        root: pathlib.Path, clip_format: ClipFormat, num_workers: int, decode: Any
    ) -> DecodePool:
        del decode
        return DecodePool(root, clip_format, num_workers, crash_at_fifth)

    monkeypatch.setattr(ray_shards, "DecodePool", pool)
    ray_shards._open_pool.cache_clear()
    manifest = prepare(spec, tmp_path, engine=RayEngine("", open_pixels))
    ray_shards._open_pool.cache_clear()
    assert manifest is not None and manifest.fields["counts"]["clips"] == 7
    skipped = manifest.fields["counts"]["videos_skipped"]
    assert skipped == {"empty_file": 1, "unreadable": 1, "crashed": 1}


def other_versions(*args: Any) -> Any:
    made_of = args[3] | {"versions": {"av": "0.1"}}
    return ray_shards.make_on_node(*args[:3], made_of, args[4])


def elsewhere(spec: PrepareSpec, folders: Any, *args: Any) -> Any:
    """Write to a folder of the same name that is another one."""
    notes, node = ray_shards.make_on_node(spec, folders, *args)
    for folder, note in zip(folders.values(), notes, strict=True):
        (folder / note["name"]).unlink()
    return notes, node


def empty_mount(spec: PrepareSpec, folders: Any, *args: Any) -> Any:
    """See a source folder of the same name without the videos."""
    source = pathlib.Path(spec.source).with_name("empty")
    source.mkdir(exist_ok=True)
    return ray_shards.make_on_node(dataclasses.replace(spec, source=str(source)), folders, *args)


@pytest.mark.parametrize(
    ("on_node", "make_encoder", "message"),
    [
        (other_versions, open_pixels, r"other versions: .*not \{'av': '0\.1'\}"),
        (ray_shards.make_on_node, open_other, "other encoder: .*other weights"),
        (elsewhere, open_pixels, r"--workdir=.* is not shared: train-.*, made by node"),
        (empty_mount, open_pixels, r"prepare\.source=.* is not shared: node .* does not see '"),
    ],
)
def test_a_node_that_would_make_other_bytes_is_refused(
    spec: PrepareSpec,
    tmp_path: pathlib.Path,
    last_first: LastFirst,
    monkeypatch: pytest.MonkeyPatch,
    on_node: Any,
    make_encoder: Any,
    message: str,
) -> None:
    monkeypatch.setattr(ray_shards, "SECONDS_TO_APPEAR", 0.1)
    remote = last_first.remote
    monkeypatch.setattr(last_first, "remote", lambda _: remote(on_node))
    with pytest.raises(ValueError, match=message):
        prepare(spec, tmp_path / "out", engine=RayEngine("", make_encoder))
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("encoder", "cluster", "needed"),
    [
        (PIXELS.facts, {"CPU": 8.0, "GPU": 4.0}, {"num_cpus": 1}),
        (PIXELS.facts, {}, {"num_cpus": 1}),
        ({"video": {"name": "image_vae"}}, {"CPU": 8.0}, {"num_cpus": 1}),
        ({"video": {"name": "image_vae"}}, {"GPU": 2.0}, {"num_cpus": 1, "num_gpus": 1}),
    ],
)
def test_encoders_ask_for_a_gpu_where_there_is_one(
    encoder: Any, cluster: dict[str, float], needed: dict[str, int]
) -> None:
    assert needed_of_node(encoder, cluster) == needed


@pytest.mark.parametrize(
    ("name", "address", "hosts", "message"),
    [
        ("local", "auto", 1, "--engine_address=auto needs --engine=ray"),
        ("ray", "", 2, r"prepare\.host_count is 2; allowed: 1"),
        ("ray", "auto", 3, r"prepare\.host_count is 3; allowed: 1"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(
    spec: PrepareSpec, name: str, address: str, hosts: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_engine(dataclasses.replace(spec, host_count=hosts), name, address, open_pixels)
    assert make_engine(spec, "local", "", open_pixels) is None
    assert make_engine(spec, "ray", "auto", open_pixels) == RayEngine("auto", open_pixels)


def test_without_ray_the_file_to_install_it_by_is_named(
    spec: PrepareSpec, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(ValueError, match="--engine=ray needs .*-r requirements-ray.txt"):
        prepare(spec, tmp_path, engine=RayEngine("", open_pixels))
    assert (REPO / "requirements-ray.txt").is_file()


def test_sigterm_means_what_it_meant_before_and_ray_ends_with_the_work(
    spec: PrepareSpec,
    prepared: pathlib.Path,
    tmp_path: pathlib.Path,
    last_first: LastFirst,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray puts a handler of its own in place, whose code no launcher knows."""
    calls: list[Any] = []

    def init(**asked: Any) -> Any:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        calls.append(asked)
        return types.SimpleNamespace(dashboard_url="")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, function in (
        ("is_initialized", lambda: False),
        ("init", init),
        ("shutdown", lambda: calls.append(signal.getsignal(signal.SIGTERM))),
    ):
        monkeypatch.setattr(last_first, name, function, raising=False)
    prepare(spec, tmp_path, engine=RayEngine("", open_pixels))
    asked, during = calls
    assert during == before
    assert asked["address"] == "local" and asked["num_cpus"] == 1  # num_workers is 0
    assert contents(tmp_path) == contents(prepared)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "[::1]:1", "localhost:99999", "ray://no.host:1"]
)
def test_an_address_where_nobody_answers_is_refused_at_once(
    spec: PrepareSpec, tmp_path: pathlib.Path, last_first: LastFirst, address: str
) -> None:
    last_first.is_initialized = lambda: False  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="--engine_address=.*: no ray answers"):
        prepare(spec, tmp_path, engine=RayEngine(address, open_pixels))


# ---- with ray


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A ray of two CPUs, to which this process is connected; a folder to count deaths in."""
    ray = pytest.importorskip("ray", reason="ray has no wheel for this Python or platform")
    deaths = tmp_path_factory.mktemp("deaths")
    env = {"env_vars": {DEATHS: str(deaths), "PYTHONPATH": str(REPO)}}
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=env
    )
    yield ray, deaths
    ray.shutdown()


@pytest.mark.slow
def test_killed_workers_are_replaced_and_leave_no_trace(
    spec: PrepareSpec, prepared: pathlib.Path, tmp_path: pathlib.Path, two_workers: Any
) -> None:
    """One worker dies once in the middle of its shard; another shard's workers die twice."""
    _, deaths = two_workers
    assert prepare(spec, tmp_path, engine=RayEngine("", open_dying)) is not None
    assert sorted(p.name for p in deaths.iterdir()) == ["fifth-0", "ninth-0", "ninth-1"]
    assert contents(tmp_path) == contents(prepared)
    assert not list(tmp_path.glob(".*.array_record*"))


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_is_given_up_and_the_others_kept(
    spec: PrepareSpec, tmp_path: pathlib.Path, two_workers: Any
) -> None:
    _, deaths = two_workers
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(4):
        write_video(videos / f"{i}.mp4", 40)
    (videos / "3.txt").write_text("99:last")
    mine = dataclasses.replace(spec, source=str(videos), videos_per_shard=1)
    with pytest.raises(ValueError, match=rf"train-00003.* was given up: .* {RETRIES + 1} times"):
        prepare(mine, tmp_path / "out", engine=RayEngine("", open_dying))
    assert len(list(deaths.glob("last-*"))) == RETRIES + 1
    made = {p.name for p in (tmp_path / "out").glob("*.array_record")}
    prepare(mine, tmp_path / "out")  # here, where nothing dies
    prepare(mine, tmp_path / "whole")
    assert len(made) == 3 and contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_errors_of_a_node_are_the_errors_of_one_process(
    spec: PrepareSpec, videos: pathlib.Path, tmp_path: pathlib.Path, two_workers: Any
) -> None:
    spec = dataclasses.replace(spec, videos_per_shard=10)  # else any of two comes first
    with pytest.raises(ValueError) as here:
        prepare(spec, tmp_path / "here", open_changing(spec))
    with pytest.raises(ValueError) as by_ray:
        prepare(spec, tmp_path / "ray", engine=RayEngine("", open_changing))
    assert "the arrays of the first" in str(here.value)
    assert str(by_ray.value) == str(here.value)


@pytest.mark.slow
def test_a_cluster_is_found_by_its_address(
    videos: pathlib.Path, prepared: pathlib.Path, tmp_path: pathlib.Path, two_workers: Any
) -> None:
    ray, _ = two_workers
    address = ray.get_runtime_context().gcs_address
    arguments = [*command(videos, tmp_path / "out"), "--engine=ray"]
    done = run([*arguments, f"--engine_address={address}"])
    assert done.returncode == 0, done.stderr
    made = contents(tmp_path / "out")
    assert "--engine=ray" in json.loads(made.pop("origin.json"))["command"]  # the command's alone
    assert made == contents(prepared)
