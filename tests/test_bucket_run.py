"""Every mode with its workdir, and its clips, in a bucket: the same run as on a disk."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from tests.buckets import SCHEMES, bucket
from tests.preparation.video_files import write_video
from tests.test_prepare import command as prepare_command
from tests.test_train import train_lines, untimed
from tests.test_video_run import OVERRIDES
from tests.tiny import REPO, flags_of_sizes
from tpdiff_jax import main
from tpdiff_jax.clips.clip_copy import local_clips
from tpdiff_jax.command_line import parse
from tpdiff_jax.files.object_store import ObjectStore
from tpdiff_jax.run_folder import owner_sign

STEPS = 25
FLOW = [
    "--config=configs/flow.py",
    *flags_of_sizes(),
    f"--config.train.num_steps={STEPS}",
    "--config.train.checkpoint_every_steps=5",
    "--config.train.log_every_steps=1",
]
KILLED = """
from tpdiff_jax import main
from tpdiff_jax.run_folder import owner_sign
owner_sign.SECONDS_BETWEEN = 0.1
main.run()
"""


@pytest.fixture()
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    with bucket(getattr(request, "param", "s3")) as address:
        yield address


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Run in this process, whose jax has started, with copies where they can be seen."""
    monkeypatch.setattr(main, "set_up_jax", lambda _: None)
    monkeypatch.setattr(owner_sign, "SECONDS_BETWEEN", 0.5)
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "copies"))
    monkeypatch.chdir(REPO)


def run(*words: str) -> int:
    return main.run_mode(parse(["tpdiff_jax", *words]))


def fetched(address: str, folder: pathlib.Path) -> pathlib.Path:
    store = ObjectStore(address)
    for name in store.sizes():
        store.fetch_to(name, folder / name)
    return folder


@pytest.mark.slow
def test_a_run_killed_in_a_bucket_goes_on_and_is_the_run_on_a_disk(
    root: str, tmp_path: pathlib.Path
) -> None:
    address, store = f"{root}/runs/killed", ObjectStore(f"{root}/runs/killed")
    words = [sys.executable, "-c", KILLED, *FLOW, f"--workdir={address}"]
    with subprocess.Popen(words, cwd=REPO, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 600
        while not any(name.endswith("0/manifest.json") for name in store.sizes()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert "results.json" not in store.sizes(), "killed before its end"
    assert run(*FLOW, f"--workdir={address}") == 0
    assert run(*FLOW, f"--workdir={tmp_path / 'disk'}") == 0
    there = fetched(address, tmp_path / "there")
    assert untimed(train_lines(there)) == untimed(train_lines(tmp_path / "disk"))
    assert len(train_lines(there)) == STEPS
    steps = sorted(int(p.name) for p in (there / "checkpoints").iterdir())
    assert steps == [15, 20, 25], "old checkpoints go there too"
    assert {p.name for p in (tmp_path / "disk").iterdir() if p.name[0] != "."} == {
        p.name for p in there.iterdir()
    }
    assert not list((tmp_path / "copies").glob("tpdiff_jax-*")), "the killed run's copy went too"

    assert run("--mode=sample", f"--workdir={address}", "--num_videos=2", "--step=20") == 0
    assert run("--mode=evaluate", f"--workdir={address}") == 0
    assert run("--mode=doctor", f"--workdir={address}") == 0
    assert run("--mode=replay", f"--workdir={address}", f"--step={STEPS}") == 0
    names = store.sizes().keys()
    assert {n for n in names if n.startswith("samples/step_00000020")}, "samples are there"
    lines = (store.read("metrics.jsonl") or b"").decode().splitlines()
    assert len([line for line in lines if "eval/" in line]) >= 1
    with pytest.raises(ValueError, match=r"'optim\.|optim\.b1|config"):
        run(*FLOW, f"--workdir={address}", "--config.optim.b1=0.5")


@pytest.mark.slow
def test_clips_are_prepared_into_a_bucket_and_trained_on_from_it(
    root: str, tmp_path: pathlib.Path
) -> None:
    videos, address = tmp_path / "videos", f"{root}/clips/tiny"
    videos.mkdir()
    for i in range(6):
        write_video(videos / f"{i}.mp4", 40)
    (videos / "broken.mp4").write_bytes(b"\0" * 99)
    words = prepare_command(videos, pathlib.Path("W"))[3:]
    assert run(*words, f"--workdir={address}") == 0
    assert run(*words, f"--workdir={tmp_path / 'disk'}") == 0
    on_disk = {p.name: p.read_bytes() for p in (tmp_path / "disk").iterdir() if p.name[0] != "."}
    store = ObjectStore(address)
    assert {name: store.read(name) for name in store.sizes()} == on_disk

    flags = [f"--config.{name}={value}" for name, value in OVERRIDES.items()]
    train = ["--config=configs/video_folder.py", *flags]
    assert run(*train, f"--config.data.folder={address}", f"--workdir={root}/runs/clips") == 0
    assert (
        run(*train, f"--config.data.folder={tmp_path / 'disk'}", f"--workdir={tmp_path / 'r'}") == 0
    )
    there = fetched(f"{root}/runs/clips", tmp_path / "there")
    assert untimed(train_lines(there)) == untimed(train_lines(tmp_path / "r"))
    assert json.loads((there / "config.json").read_text())["data"]["folder"] == address


@pytest.mark.parametrize("root", SCHEMES, indirect=True)
def test_a_copy_of_clips_is_made_once_and_only_of_what_the_manifest_names(
    root: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, address = tmp_path / "videos", f"{root}/clips/few"
    videos.mkdir()
    for i in range(3):
        write_video(videos / f"{i}.mp4", 40)
    words = prepare_command(videos, pathlib.Path("W"))[3:]
    several = "--config.prepare.buckets=('8x32x48','4x48x32')"
    for place, more in ((address, ()), (f"{address}2", (several,))):
        assert run(*words, *more, f"--workdir={place}") == 0
        first = local_clips(place)
        before = {p: p.stat().st_mtime_ns for p in pathlib.Path(first).rglob("*")}
        assert local_clips(f"{place}/") == first
        assert {p: p.stat().st_mtime_ns for p in pathlib.Path(first).rglob("*")} == before
    assert local_clips(str(videos)) == str(videos)
    with pytest.raises(ValueError, match="few3 has no manifest.json"):
        local_clips(f"{address}3")
    store = ObjectStore(address)
    (shard,) = [name for name in store.sizes() if name.endswith(".array_record")]
    content = store.read(shard) or b""
    pathlib.Path(first).parent.rename(tmp_path / "moved")
    for damaged in (bytes([content[0] ^ 1]) + content[1:], content[:-1], b""):
        store.write(shard, damaged)
        with pytest.raises(ValueError, match=f"{shard} is not what the manifest names"):
            local_clips(address)
    store.remove(shard)
    with pytest.raises(ValueError, match=f"has no {shard}"):
        local_clips(address)
    for name in ("../up", "/etc/passwd", "a/b", ".hidden"):
        store.write(
            "manifest.json", json.dumps({"shards": [{"name": name, "sha256": ""}]}).encode()
        )
        with pytest.raises(ValueError, match="manifest.json names"):
            local_clips(address)


@pytest.mark.parametrize(
    "address", ["gs://bucket", "gs:/bucket/run", "https://a.org/x", "az://b/c"]
)
def test_other_addresses_are_refused_with_the_kinds_that_there_are(address: str) -> None:
    with pytest.raises(ValueError, match=r"--workdir=.* is an address; allowed: .*gs://BUCKET/FO"):
        run(*FLOW, f"--workdir={address}")
    with pytest.raises(ValueError, match=r"^data.folder=.* is an address; allowed: .*gs://BUCKET"):
        run("--config=configs/video_folder.py", f"--config.data.folder={address}", "--workdir=w")


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(ValueError, match="--workdir=gs://b/run: 2 processes need a folder"):
        run(*FLOW, "--workdir=gs://b/run")


@pytest.mark.parametrize(("scheme", "module"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_without_the_library_the_file_to_install_it_by_is_named(
    scheme: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    opened_before = sys.modules["fsspec.registry"]._registry  # type: ignore[attr-defined]
    monkeypatch.delitem(opened_before, scheme, raising=False)
    with pytest.raises(ValueError, match="needs `pip install -r requirements-bucket.txt`"):
        ObjectStore(f"{scheme}://bucket/run")
    assert os.path.isfile(REPO / "requirements-bucket.txt")
