"""A workdir in a bucket: whatever is killed or damaged, what is read there is whole."""

import errno
import fcntl
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest

from tests.buckets import SCHEMES, bucket
from tpdiff_jax import main
from tpdiff_jax.files import object_store
from tpdiff_jax.files.object_store import ObjectStore
from tpdiff_jax.run_folder import owner_sign
from tpdiff_jax.run_folder import working_copy as copies
from tpdiff_jax.run_folder.checkpoint_folder import list_steps, publish_checkpoint, remove_step
from tpdiff_jax.run_folder.checkpoint_manifest import (
    DamagedCheckpointError,
    verify,
    write_checkpoint_manifest,
)
from tpdiff_jax.run_folder.local_copy import SendError, keep_from_cleaners
from tpdiff_jax.run_folder.object_names import OWNER_OBJECT, sending_order
from tpdiff_jax.run_folder.working_copy import working_copy

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
    monkeypatch.setattr(owner_sign, "SECONDS_BETWEEN", 0.1)
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
            def call(*args, **more):
                nonlocal left
                if left == 0:
                    raise KilledError
                left -= 1
                return function(*args, **more)

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
        assert sending_order(first, modified) < sending_order(then, 5)


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


def test_a_second_trainer_is_refused_and_one_that_died_is_not_waited_for_long(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working_copy(address, "train"), monkeypatch.context() as patch:
        patch.setattr(owner_sign, "LIVES", 30.0)  # on a busy machine signs come late
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
        assert "checkpoints/1/manifest.json" in copies_of.sizes()
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
    signs = [".owner", "in/.train.lock", ".a.json.tmp", ".host-0-of-2.lock"]
    names = ["ok.txt", "../up.txt", f"{tmp_path}/absolute.txt", "a/../../up.txt", "b//c", *signs]
    monkeypatch.setattr(ObjectStore, "sizes", lambda _: dict.fromkeys(names, 1))
    monkeypatch.setattr(ObjectStore, "fetch_to", lambda _, name, path: path.write_text(name))
    with working_copy(address, "doctor") as folder:
        assert [p.name for p in folder.iterdir()] == ["ok.txt"]


def test_what_cannot_be_sent_stays_and_is_named(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    def fail(*_: object, **__: object) -> None:
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


def whole_steps(address: str) -> list[int]:
    """Steps of the checkpoints that are complete at an address."""
    names = ObjectStore(address).sizes().keys()
    steps = {int(name.split("/")[1]) for name in names if name.startswith("checkpoints/")}
    return sorted(s for s in steps if {f"checkpoints/{s}/{file}" for file in FILES} <= names)


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("objects_per_save", [1, 2, 3, 5])
def test_a_connection_slower_than_saving_leaves_a_whole_checkpoint_there(
    address: str,
    keep: int,
    objects_per_save: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    """While objects go, the run publishes checkpoints and removes old ones."""
    store, local, sent = ObjectStore(address), tmp_path / "run", 0
    local.mkdir()
    copy = copies.Copy(store, local, is_owner=True)

    def publish() -> None:
        newest = 1 + max(list_steps(local / "checkpoints"), default=0)
        log(local, newest)
        save(local, newest)
        for old in list_steps(local / "checkpoints")[:-keep]:
            remove_step(local / "checkpoints", old)

    send = store.send

    def send_slowly(path: pathlib.Path, name: str, **more: bool) -> None:
        nonlocal sent
        sent += 1
        if sent % objects_per_save == 0:
            publish()
        send(path, name, **more)

    monkeypatch.setattr(store, "send", send_slowly)
    publish()
    newest = 0
    for _ in range(6):
        copy.send()
        assert whole_steps(address) and whole_steps(address)[-1] > newest, "newer every time"
        newest = whole_steps(address)[-1]
        lines = (store.read("metrics.jsonl") or b"").count(b"\n")
        assert lines >= newest, "the log is not behind"


def test_checkpoints_that_vanish_while_they_are_listed_take_none_away_there(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    copy, state = copies.Copy(ObjectStore(address), tmp_path, is_owner=True), copies._state
    save(tmp_path, 1)
    copy.send()

    def pruned(path: pathlib.Path) -> copies._State:
        if path.parent.name == "1" and not (tmp_path / "checkpoints" / "2").exists():
            save(tmp_path, 2)
            remove_step(tmp_path / "checkpoints", 1)
        return state(path)

    monkeypatch.setattr(copies, "_state", pruned)
    copy.send()
    assert whole_steps(address) == [1]
    copy.send()
    assert whole_steps(address) == [2]
    remove_step(tmp_path / "checkpoints", 2)
    copy.send()
    assert whole_steps(address) == [2], "kept until there is a newer one"


def test_files_that_rest_for_days_are_touched_so_that_cleaners_leave_them(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    video = tmp_path / "samples" / "0.mp4"
    video.parent.mkdir()
    video.write_bytes(b"v")
    copy = copies.Copy(ObjectStore(address), tmp_path, is_owner=True)
    copy.send()
    before, later = video.stat(), time.time() + 3 * 86_400
    keep_from_cleaners(tmp_path)
    assert video.stat().st_atime == before.st_atime, "of today"
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(copy._store, "send", lambda *_, **__: pytest.fail("nothing has changed"))
    monkeypatch.setattr(copy._store, "write", lambda *_, **__: pytest.fail("nothing has changed"))
    copy.send()
    after = video.stat()
    assert after.st_atime == pytest.approx(later, abs=1.0)
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_copy_that_is_gone_takes_nothing_away_there(address: str) -> None:
    with working_copy(address, "train") as folder:
        for step in (1, 2, 3):
            save(folder, step)
    with pytest.raises(SendError, match="is gone"):
        with working_copy(address, "train") as folder:
            shutil.rmtree(folder.parent)
    assert whole_steps(address) == [1, 2, 3]
    with working_copy(address, "train") as folder:
        shutil.rmtree(folder / "checkpoints")
    assert whole_steps(address) == [1, 2, 3]


def test_copies_are_no_leftovers_where_nothing_can_be_locked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with working_copy(address, "train") as folder:
        save(folder, 1)
        with working_copy(f"{address}2", "doctor"):
            pass
        assert list_steps(folder / "checkpoints") == [1]
    assert whole_steps(address) == [1]


def test_a_bucket_that_does_not_exist_is_named_and_results_stay(
    root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    missing = f"{root}-misspelt/run"
    with pytest.raises(ValueError, match=f"--workdir={missing}: there is no such bucket"):
        with working_copy(missing, "train"):
            pass
    with pytest.raises(SendError, match="what is not there is in"):
        with working_copy(missing, "plan") as folder:
            (folder / "plan.json").write_text("{}")
    assert (folder / "plan.json").read_text() == "{}"


def test_what_libraries_raise_at_the_start_is_one_line(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    for raised, kind in (
        (ConnectionResetError("no route"), copies.UnreachableError),
        (KeyError("token"), copies.UnreachableError),
        (PermissionError("denied"), ValueError),
    ):
        with monkeypatch.context() as patch:

            def fail(*_: object, error: Exception = raised) -> None:
                raise error

            patch.setattr(ObjectStore, "sizes", fail)
            for mode in ("train", "sample"):
                with pytest.raises(kind, match=f"--workdir={address}.*{raised.args[0]}"):
                    with working_copy(address, mode):
                        pass
    assert main.exit_code(copies.UnreachableError("x")) == main.ExitCode.SAVE_FAILED
    assert not list(tmp_path.glob("*tpdiff_jax-*"))


def test_interrupted_during_the_last_sending_the_copy_stays(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with working_copy(address, "train") as folder:
            save(folder, 1)
            monkeypatch.setattr(ObjectStore, "send", interrupted)
    monkeypatch.undo()
    assert is_whole(folder, 1)
    with working_copy(f"{address}2", "doctor"):
        pass
    assert is_whole(folder, 1), "it is nobody's leftover either"


def test_what_a_command_removes_goes_there_too_and_a_half_sets_mark_with_it(address: str) -> None:
    with working_copy(address, "train") as folder:
        (folder / "samples").mkdir()
        for name in (".unfinished_samples", "0000.mp4", "0001.mp4"):
            (folder / "samples" / name).write_bytes(b"x")
        (folder / "wandb_open.txt").write_text("open")
    assert "samples/.unfinished_samples" in objects(address)
    with working_copy(address, "sample") as folder:
        for name in (".unfinished_samples", "0001.mp4"):
            (folder / "samples" / name).unlink()
    assert objects(address).keys() == {"samples/0000.mp4", "wandb_open.txt"}
    with working_copy(address, "train") as folder:
        (folder / "wandb_open.txt").unlink()
    assert objects(address).keys() == {"samples/0000.mp4"}


def test_the_sign_of_a_dead_run_keeps_no_results_back(address: str) -> None:
    ObjectStore(address).write("results.json", b"old")
    ObjectStore(address).write(OWNER_OBJECT, b"somebody 7")  # and no further sign of life
    with working_copy(address, "evaluate") as folder:
        (folder / "results.json").write_text("new")
    assert objects(address)["results.json"] == b"new"


def test_a_run_that_dies_after_it_was_seen_alive_keeps_no_results_back(address: str) -> None:
    store, signs = ObjectStore(address), ("somebody 7", "somebody 8")
    watch = owner_sign.OwnerWatch(store)
    assert not watch.is_alive(), "nobody was there"
    for sign in signs:
        store.write(OWNER_OBJECT, sign.encode())
        watch.look()
    assert watch.is_alive()
    time.sleep(owner_sign.LIVES * owner_sign.SECONDS_BETWEEN)
    assert not watch.is_alive(), "its last sign has long been the same"
    store.write(OWNER_OBJECT, b"another 0")
    assert watch.is_alive()


def test_a_reader_whose_checkpoint_is_pruned_takes_the_newer_one(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working_copy(address, "train") as folder:
        save(folder, 1)
    other, fetch = ObjectStore(address), ObjectStore.fetch_to

    def pruned(store: ObjectStore, name: str, path: pathlib.Path) -> None:
        if name == "checkpoints/1/state/a" and other.read(name):
            for file in FILES:
                content = other.read(f"checkpoints/1/{file}") or b""
                other.remove(f"checkpoints/1/{file}")
                other.write(f"checkpoints/2/{file}", content)
        fetch(store, name, path)

    monkeypatch.setattr(ObjectStore, "fetch_to", pruned)
    with working_copy(address, "sample") as folder:
        assert list_steps(folder / "checkpoints")[-1] == 2
        assert (folder / "checkpoints" / "2" / "state" / "b").exists()


def test_a_step_that_is_not_there_is_named_with_those_that_are(address: str) -> None:
    with working_copy(address, "train") as folder:
        for step in (1, 2):
            save(folder, step)
    with pytest.raises(ValueError, match=rf"no checkpoint of step 7 in {address}: \[1, 2\]"):
        with working_copy(address, "sample", step=7):
            pass


def test_doctor_sees_a_checkpoint_without_its_manifest(address: str) -> None:
    with working_copy(address, "train") as folder:
        save(folder, 1)
    manifest = ObjectStore(address).read("checkpoints/1/manifest.json") or b""
    ObjectStore(address).remove("checkpoints/1/manifest.json")
    with working_copy(address, "doctor") as folder:
        assert list_steps(folder / "checkpoints") == [1]
        (folder / "checkpoints" / "1" / "manifest.json").write_bytes(manifest)  # it is trusted
    assert whole_steps(address) == [1]


def test_a_log_that_grows_while_it_is_sent_is_sent_as_it_was(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(object_store, "_AT_ONCE", 8)
    monkeypatch.setattr(object_store, "_PART", 5)
    store, log_file = ObjectStore(address), tmp_path / "metrics.jsonl"
    log_file.write_text("line one\nline two\n")
    put = store._files.put_file

    def put_later(path: str, name: str) -> None:
        with log_file.open("a") as file:
            file.write("line three\n")
        put(path, name)

    monkeypatch.setattr(store._files, "put_file", put_later)
    store.send(log_file, "metrics.jsonl", may_grow=True)
    assert store.read("metrics.jsonl") == b"line one\nline two\n"
