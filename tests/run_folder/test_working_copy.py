"""A workdir in a bucket: whatever is killed or damaged, what is read there is whole."""

import pathlib
import tempfile
import threading
from collections.abc import Iterator

import pytest

from tests.buckets import SCHEMES, bucket
from tpdiff_jax.files.object_store import ObjectStore
from tpdiff_jax.run_folder import working_copy as copies
from tpdiff_jax.run_folder.checkpoint_folder import list_steps, publish_checkpoint, remove_step
from tpdiff_jax.run_folder.checkpoint_manifest import (
    DamagedCheckpointError,
    verify,
    write_checkpoint_manifest,
)
from tpdiff_jax.run_folder.working_copy import OWNER_OBJECT, SendError, working_copy

Files = dict[str, bytes]
FILES = ("_METADATA", "state/a", "state/b", "manifest.json")  # of a checkpoint of `save`


@pytest.fixture(scope="module", params=SCHEMES)
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    with bucket(request.param) as address:
        yield address


@pytest.fixture()
def address(root: str, request: pytest.FixtureRequest) -> str:
    return f"{root}/{abs(hash(request.node.name))}/run"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(copies, "SECONDS_BETWEEN", 0.1)
    monkeypatch.setattr(copies, "_PAUSE", 0.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def save(folder: pathlib.Path, step: int) -> None:
    """Publish a checkpoint as a run does, of files that hold its step."""
    saving = folder / "checkpoints" / f"{step}.saving"
    (saving / "state").mkdir(parents=True)
    for name in FILES[:-1]:
        (saving / name).write_bytes(f"{name} of {step}".encode())
    write_checkpoint_manifest(saving, step=step)
    publish_checkpoint(folder / "checkpoints", step)


def is_whole(folder: pathlib.Path, step: int) -> bool:
    try:
        verify(folder / "checkpoints" / f"{step}")
    except DamagedCheckpointError:
        return False
    return True


def log(folder: pathlib.Path, step: int) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": {step}}}\n')


def objects(address: str) -> Files:
    store = ObjectStore(address)
    return {name: store.read(name) or b"" for name in store.sizes()}


def test_a_store_lists_reads_replaces_and_removes(address: str, tmp_path: pathlib.Path) -> None:
    store = ObjectStore(address)
    assert store.sizes() == {} and store.read("a") is None
    store.remove("a")
    store.write("a", b"one")
    ObjectStore(f"{address}2").write("neighbour", b"whose name begins alike")
    (tmp_path / "b").write_bytes(b"")
    store.send(tmp_path / "b", "in/side/b")
    store.write("a", b"three")
    assert store.sizes() == {"a": 5, "in/side/b": 0}
    store.fetch_to("a", tmp_path / "new" / "a")
    assert (tmp_path / "new" / "a").read_bytes() == b"three"
    with pytest.raises(FileNotFoundError):
        store.fetch_to("gone", tmp_path / "gone")
    store.remove("a")
    assert store.sizes() == {"in/side/b": 0}


def test_a_run_goes_on_where_it_was_and_old_checkpoints_go(
    address: str, tmp_path: pathlib.Path
) -> None:
    with working_copy(address, "train") as folder:
        assert folder.name == "run"
        (folder / "config.json").write_text("{}")
        for step in (1, 2):
            log(folder, step)
            save(folder, step)
    assert not list(tmp_path.glob("tpdiff_jax-*")), "the copy is removed"
    with working_copy(address, "train") as folder:
        assert list_steps(folder / "checkpoints") == [1, 2]
        verify(folder / "checkpoints" / "2")
        log(folder, 3)
        save(folder, 3)
        remove_step(folder / "checkpoints", 1)
        (folder / "checkpoints" / "4.saving").mkdir()
        (folder / "checkpoints" / "4.saving" / "half").write_bytes(b"x")
        (folder / ".train.lock").write_text("mine")
    found = objects(address)
    steps = {name.split("/")[1] for name in found if name.startswith("checkpoints/")}
    assert steps == {"2", "3"}
    assert found["metrics.jsonl"].count(b"\n") == 3
    assert found.keys() - {n for n in found if "checkpoints" in n} == {
        "config.json",
        "metrics.jsonl",
    }


def test_it_is_sent_while_the_run_goes_on(address: str) -> None:
    with working_copy(address, "train") as folder:
        save(folder, 1)
        for _ in range(200):
            if "checkpoints/1/manifest.json" in ObjectStore(address).sizes():
                break
            threading.Event().wait(0.05)
        assert "checkpoints/1/manifest.json" in ObjectStore(address).sizes()


class KilledError(BaseException):
    """Nothing that a library would catch."""


def test_killed_between_any_two_objects_the_newest_whole_checkpoint_is_read(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Steps 1 and 2 are there; 3 comes and 1 goes, cut off after every number of changes."""
    seen = set()
    for limit in range(12):
        place = f"{address}/{limit}"
        store = ObjectStore(place)
        local = tmp_path / f"{limit}"
        local.mkdir()
        copy = copies.Copy(store, local, is_owner=True)
        for step in (1, 2):
            log(local, step)
            save(local, step)
        copy.send()
        log(local, 3)
        save(local, 3)
        remove_step(local / "checkpoints", 1)
        left = limit

        def counted(function):
            def call(*args):
                nonlocal left
                if left == 0:
                    raise KilledError
                left -= 1
                return function(*args)

            return call

        for name in ("send", "remove"):
            monkeypatch.setattr(store, name, counted(getattr(store, name)))
        was_killed = False
        try:
            copy.send()
        except KilledError:
            was_killed = True
        with working_copy(place, "sample") as folder:
            whole = [s for s in list_steps(folder / "checkpoints") if is_whole(folder, s)]
            lines = (folder / "metrics.jsonl").read_text().count("\n")
        assert whole in ([2], [3]) and lines >= whole[0], "the log is not behind"
        seen.add((whole[0], was_killed))
        with working_copy(place, "train") as folder:
            found = list_steps(folder / "checkpoints")
            assert all(is_whole(folder, s) for s in found), "none is rejected for being cut off"
        there = {name for name in store.sizes() if name.startswith("checkpoints/")}
        assert there == {f"checkpoints/{s}/{file}" for s in found for file in FILES}
    assert seen == {(2, True), (3, True), (3, False)}


def test_a_run_killed_while_its_first_checkpoint_is_sent_starts_anew(
    address: str,
) -> None:
    store = ObjectStore(address)
    foreign = ("checkpoints/007/mine", "checkpoints/notes.txt")
    for name in ("checkpoints/4/state/of_the_first_try", "checkpoints/4/_METADATA", *foreign):
        store.write(name, b"x")
    for mode in ("train", "evaluate"):
        with working_copy(address, mode) as folder:
            assert list_steps(folder / "checkpoints") == []
        assert len(store.sizes()) == 4, "kept until there is another"
    with working_copy(address, "train") as folder:
        save(folder, 4)
    assert store.sizes().keys() == {f"checkpoints/4/{file}" for file in FILES}.union(foreign)


def test_a_checkpoint_that_comes_while_files_are_listed_is_not_sent_before_its_line(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    store, state = ObjectStore(address), copies._state
    copy = copies.Copy(store, tmp_path, is_owner=True)
    log(tmp_path, 1)
    save(tmp_path, 1)
    copy.send()

    def looked_at(path: pathlib.Path) -> copies._State:
        found = state(path)
        if path.name == "metrics.jsonl" and list_steps(tmp_path / "checkpoints") == [1]:
            log(tmp_path, 2)
            save(tmp_path, 2)
        return found

    monkeypatch.setattr(copies, "_state", looked_at)
    for num_lines, steps in ((1, {"1"}), (2, {"1", "2"})):
        copy.send()
        found = objects(address)
        assert found["metrics.jsonl"].count(b"\n") == num_lines
        assert {name.split("/")[1] for name in found if "checkpoints/" in name} == steps


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("prepare.json", "16x96x160/train-0.array_record"),
        ("config.json", "metrics.jsonl"),
        ("train-0.array_record", "train-0.array_record.json"),
        ("zz.array_record.json", "manifest.json"),
        ("16x96x160/manifest.json", "manifest.json"),
        ("clips/1.record", "clips/clips.json"),
        ("export/z.safetensors", "export/model.safetensors.index.json"),
        ("results.json", "checkpoints/1/_METADATA"),
        ("checkpoints/2/state/d/z", "checkpoints/1/manifest.json"),
    ],
)
def test_what_vouches_for_others_is_sent_after_them(first: str, then: str) -> None:
    for modified in (0, 5):  # also where the clock does not tell them apart
        assert copies._order(first, modified) < copies._order(then, 5)


@pytest.mark.parametrize("damage", ["flip", "remove", "shorten", "manifest"])
def test_a_damaged_checkpoint_sends_the_reader_to_the_one_before(address: str, damage: str) -> None:
    with working_copy(address, "train") as folder:
        for step in (1, 2):
            save(folder, step)
    store, name = ObjectStore(address), "checkpoints/2/state/a"
    content = store.read(name) or b""
    if damage == "flip":
        store.write(name, bytes([content[0] ^ 1]) + content[1:])
    elif damage == "shorten":
        store.write(name, content[:-1])
    else:
        store.remove(name if damage == "remove" else "checkpoints/2/manifest.json")
    with working_copy(address, "evaluate") as folder:
        # The run's own walk back names a damaged one; without a manifest it is a half sent one.
        assert list_steps(folder / "checkpoints") == ([1] if damage == "manifest" else [1, 2])
        verify(folder / "checkpoints" / "1")
    with working_copy(address, "sample", step=1) as folder:
        assert list_steps(folder / "checkpoints") == [1]


def test_a_second_trainer_is_refused_and_one_that_died_is_not_waited_for_long(address: str) -> None:
    with working_copy(address, "train"):
        with pytest.raises(ValueError, match="--workdir=.*/run is being worked on by another"):
            with working_copy(address, "prepare"):
                pass
    assert OWNER_OBJECT not in ObjectStore(address).sizes()
    ObjectStore(address).write(OWNER_OBJECT, b"somebody 7")  # and no further sign of life
    with working_copy(address, "train") as folder:
        save(folder, 1)
    assert "checkpoints/1/manifest.json" in ObjectStore(address).sizes()


def test_two_that_start_in_the_same_moment_are_not_both_let_in(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ObjectStore.write

    def overtaken(store: ObjectStore, name: str, content: bytes) -> None:
        write(store, name, content)
        if name == OWNER_OBJECT:
            write(store, name, b"somebody")

    monkeypatch.setattr(ObjectStore, "write", overtaken)
    with pytest.raises(ValueError, match="being worked on"):
        with working_copy(address, "train"):
            pass


def test_other_modes_add_and_leave_a_live_runs_files_alone(address: str) -> None:
    with working_copy(address, "train") as folder:
        (folder / "results.json").write_text("the trainer's")
        save(folder, 1)
        copies_of = ObjectStore(address)
        for _ in range(200):
            if "checkpoints/1/manifest.json" in copies_of.sizes():
                break
            threading.Event().wait(0.05)
        with working_copy(address, "evaluate") as other:
            (other / "results.json").write_text("the reader's")
            (other / "samples").mkdir()
            (other / "samples" / "a.mp4").write_bytes(b"video")
            remove_step(other / "checkpoints", 1)
    found = objects(address)
    assert found["results.json"] == b"the trainer's" and found["samples/a.mp4"] == b"video"
    assert "checkpoints/1/manifest.json" in found
    with working_copy(address, "evaluate") as other:  # nobody at work there
        (other / "results.json").write_text("the reader's")
        remove_step(other / "checkpoints", 1)
    found = objects(address)
    assert found["results.json"] == b"the reader's" and "checkpoints/1/manifest.json" in found


def test_names_that_lead_out_of_the_folder_are_not_fetched(
    address: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["ok.txt", "../up.txt", f"{tmp_path}/absolute.txt", "a/../../up.txt", ".hidden", "b//c"]
    monkeypatch.setattr(ObjectStore, "sizes", lambda _: dict.fromkeys(names, 1))
    monkeypatch.setattr(ObjectStore, "fetch_to", lambda _, name, path: path.write_text(name))
    with working_copy(address, "doctor") as folder:
        assert [p.name for p in folder.iterdir()] == ["ok.txt"]


def test_what_cannot_be_sent_stays_and_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionError("no route")

    with pytest.raises(SendError, match="no route.*what is not there is in ") as error:
        with working_copy(address, "train") as folder:
            save(folder, 1)
            monkeypatch.setattr(ObjectStore, "send", fail)
    assert str(folder) in str(error.value)
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / "tpdiff_jax-dead"
    dead.mkdir()
    (dead / ".lock").write_text("of a process that was killed")
    with working_copy(address, "doctor"):
        assert not dead.exists()
    verify(folder / "checkpoints" / "1")
