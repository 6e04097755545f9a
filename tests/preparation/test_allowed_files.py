"""Which files of a folder are videos, and which paths of a table are followed."""

import errno
import json
import types

import pytest

from tests.preparation.test_caption_tables import read, write
from tests.preparation.video_files import write_video
from tests.test_prepare import make_spec
from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.data.video_records import VideoRecordsSpec
from tpdiff_jax.preparation import folder_walk
from tpdiff_jax.preparation.caption_tables import read_sources
from tpdiff_jax.preparation.clip_source import check_contained
from tpdiff_jax.preparation.column_names import Columns
from tpdiff_jax.preparation.folder_walk import walk_folder
from tpdiff_jax.prepare import prepare

HIDDEN = [
    "._a.mp4", ".a.mp4", "__MACOSX/._a.mp4", "__MACOSX/a.mp4", ".ipynb_checkpoints/a.mp4",
    ".Trash-1000/files/a.mp4", "sub/.git/a.mp4", "@eaDir/a.mp4/THUMB.mp4", "#recycle/a.mp4",
    "$RECYCLE.BIN/S-1/a.mp4", "lost+found/a.mp4", "System Volume Information/a.mp4",
    ".cache/huggingface/download/a.mp4", "sub/@eaDir/x.mp4", "#snapshot/a.mp4", "@Recycle/a.mp4",
    "__pycache__/a.mp4", ".Spotlight-V100/a.mp4", ".fseventsd/a.mp4",
]  # fmt: skip


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_hidden_files_and_system_folders_are_no_videos_and_are_told(tmp_path, caplog):
    root = touch(tmp_path / ".data" / "videos", "a.mp4", "sub/b.MOV", "x.txt", *HIDDEN)
    with caplog.at_level("INFO", logger="absl"):
        clips, skipped = read(root)
    assert [clip.path for clip in clips] == ["a.mp4", "sub/b.MOV"] and skipped == []
    assert "hidden files and system folders are left out" in caplog.text
    found = walk_folder(root.resolve())
    assert "__MACOSX" in found.left_out and "sub/.git" in found.left_out
    # What a table names, its author wants.
    table = write(tmp_path, "t.csv", "video\n.a.mp4\n")
    assert [clip.path for clip in read(root, table).clips] == [".a.mp4"]


def test_links_to_folders_are_followed_where_they_are_allowed(tmp_path):
    root, disk, other = (touch(tmp_path / n, "a.mp4") for n in ("root", "disk", "other"))
    (root / "more").symlink_to(disk)
    (root / "again").symlink_to(root)
    (disk / "circle").symlink_to(disk)
    (root / "secret").symlink_to(other)
    for also, names, refused in (
        ((), ["a.mp4"], ["more", "secret"]),
        ((str(disk),), ["a.mp4", "more/a.mp4"], ["secret"]),
        ((str(tmp_path),), ["a.mp4", "more/a.mp4", "secret/a.mp4"], []),
    ):
        clips, skipped = read_sources(
            root, None, Columns(), max_caption_bytes=99, also_allowed=also
        )
        assert [clip.path for clip in clips] == names
        assert [(bad.path, bad.reason) for bad in skipped] == [
            (name, "outside_root") for name in refused
        ]


def test_a_video_that_is_a_link_in_a_circle_is_skipped_and_named(tmp_path):
    root = touch(tmp_path / "root", "a.mp4", "d.mp4")
    for link, target in (
        ("b.mp4", "b.mp4"),
        ("c.mp4", "sub"),  # by way of others
        ("sub", "up"),
        ("up", "sub"),
        ("d.txt", "d.txt"),
        ("e.mp4", "e" * 300),  # longer than a name can be
        ("f.mp4", "a.mp4/f.mp4"),
        ("notes", "notes"),
    ):
        (root / link).symlink_to(target)
    clips, skipped = read(root)
    assert [clip.path for clip in clips] == ["a.mp4"]
    assert [(bad.path, bad.reason) for bad in skipped] == [
        (name, "missing_file") for name in ("b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4")
    ]
    assert skipped[2].detail.startswith("d.txt: ")


def test_a_link_that_may_not_be_followed_is_an_error_unless_it_is_a_video():
    def refuse():
        raise PermissionError(errno.EACCES, "Permission denied")  # which root never meets

    with pytest.raises(PermissionError):
        folder_walk._leads_to_folder(types.SimpleNamespace(name="more", is_dir=refuse))
    assert not folder_walk._leads_to_folder(types.SimpleNamespace(name="a.mp4", is_dir=refuse))


@pytest.fixture
def hub(tmp_path):
    """A cache of the hub: files of a snapshot are links into `blobs` beside it."""
    cache = touch(tmp_path / "datasets--me--clips", "blobs/1f", "blobs/2e")
    root = cache / "snapshots" / "rev"
    root.mkdir(parents=True)
    (root / "a.mp4").symlink_to("../../blobs/1f")
    (root / "b.mp4").symlink_to("../../blobs/2e")
    return root


def test_a_hub_cache_is_read_once_its_blobs_are_allowed(hub):
    blobs = hub.parent.parent / "blobs"
    clips, skipped = read(hub)
    assert clips == [] and {bad.reason for bad in skipped} == {"outside_root"}
    assert f"prepare.also_allowed may name {blobs}" in skipped[0].detail
    allowed = read_sources(hub, None, Columns(), max_caption_bytes=99, also_allowed=(str(blobs),))
    assert [clip.path for clip in allowed.clips] == ["a.mp4", "b.mp4"] and allowed.skipped == []
    with pytest.raises(ValueError, match=r"prepare\.also_allowed='.*nowhere' is not a folder"):
        read_sources(
            hub, None, Columns(), max_caption_bytes=99, also_allowed=(str(hub / "nowhere"),)
        )


def test_absolute_paths_are_accepted_where_they_lead_inside(tmp_path):
    root = touch(tmp_path / "root", "a.mp4", "sub/b.mp4", "c.mp4")
    second, third = touch(tmp_path / "second", "d.mp4"), touch(tmp_path / "third", "e.mp4")
    (tmp_path / "link").symlink_to(root)
    (root / "out.mp4").symlink_to(third / "e.mp4")
    paths = [root / "a.mp4", tmp_path / "link" / "sub" / "b.mp4", second / "d.mp4"]
    bad_paths = [third / "e.mp4", root / "out.mp4", root / "none.mp4", root / ".." / "third" / "e"]
    lines = ["video", *map(str, paths), "a.mp4", *(f"{p}" for p in bad_paths), "c.mp4"]
    clips, skipped = read_sources(
        tmp_path / "link",
        write(tmp_path, "t.csv", "\n".join(lines)),
        Columns(),
        max_caption_bytes=99,
        also_allowed=(str(second),),
    )
    names = [clip.path for clip in clips]
    assert names == ["a.mp4", "sub/b.mp4", str(second / "d.mp4"), "c.mp4"]
    assert [bad.reason for bad in skipped] == [
        *("duplicate", "absolute_path", "absolute_path", "missing_file", "parent_folder")
    ]
    assert str(third) in skipped[1].detail and "line 6" in skipped[1].detail
    for clip in clips:  # as decoding checks again
        check_contained(root.resolve(), clip.path, (second.resolve(),))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("https://host/a.mp4", "address"),
        ("s3://bucket/a.mp4", "address"),
        ("gs:/bucket/a.mp4", "address"),
        ("file:///data/a.mp4", "address"),
        ("C:/videos/a.mp4", "absolute_path"),
        ("//server/share/a.mp4", "absolute_path"),
        ("~/a.mp4", "missing_file"),
        ("/dev/null", "absolute_path"),
    ],
)
def test_what_leads_elsewhere_stays_refused(tmp_path, path, reason):
    with pytest.raises(BadClipError) as bad:
        check_contained(tmp_path.resolve(), path)
    assert bad.value.reason == reason


def test_paths_may_start_from_the_table_s_own_folder(tmp_path):
    root = touch(tmp_path / "root", "part/a.mp4", "part/clips/b.mp4", "c.mp4")
    table = write(root / "part", "t.csv", "video\na.mp4\nclips/b.mp4\nc.mp4\npart/a.mp4\n")
    clips, (bad,) = read(root, table)
    assert [clip.path for clip in clips] == ["part/a.mp4", "part/clips/b.mp4", "c.mp4"]
    assert bad.reason == "duplicate"


def test_paths_may_start_from_the_folder_of_a_table_that_lies_elsewhere(tmp_path):
    """`D/metadata.csv` names `videos/b.mp4`, and the source is D/videos; nothing else opens up."""
    root = touch(tmp_path / "set" / "videos", "a.mp4", "part/b.mp4", "both.mp4", "videos/both.mp4")
    touch(tmp_path / "set", "other/c.mp4", "d.mp4")
    names = ["videos/a.mp4", " videos/part/b.mp4 ", "videos/both.mp4", "other/c.mp4", "d.mp4", "e"]
    lines = ["video", *names, "videos/../d.mp4", "part/b.mp4"]
    table = write(tmp_path / "set", "metadata.csv", "\n".join(lines))
    clips, skipped = read(root, table)
    assert [clip.path for clip in clips] == ["a.mp4", "part/b.mp4", "videos/both.mp4"]
    assert [bad.reason for bad in skipped] == [
        *("missing_file", "missing_file", "missing_file", "parent_folder", "duplicate")
    ]
    allowed = str(tmp_path / "set" / "other")
    clips, _ = read_sources(root, table, Columns(), max_caption_bytes=9, also_allowed=(allowed,))
    assert [clip.path for clip in clips][3:] == [f"{allowed}/c.mp4"]


def test_clips_behind_allowed_paths_and_links_are_prepared(tmp_path):
    """Decoding checks again: it knows of the further folders too."""
    cache = touch(tmp_path / "datasets--me--clips", "blobs/none")
    write_video(cache / "blobs" / "video.mp4", 12)
    (cache / "blobs" / "video.mp4").rename(cache / "blobs" / "1f")
    root, disk = cache / "snapshots" / "rev", tmp_path / "disk"
    root.mkdir(parents=True)
    disk.mkdir()
    (root / "a.mp4").symlink_to("../../blobs/1f")
    write_video(root / "b.mp4", 12)
    write_video(disk / "c.mp4", 12)
    write_video(tmp_path / "refused.mp4", 12)
    paths = ["a.mp4", root / "b.mp4", disk / "c.mp4", tmp_path / "refused.mp4"]
    lines = [json.dumps({"video_path": str(path), "caption": f"of {path}"}) for path in paths]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    spec = make_spec(
        root, num_frames=3, height=8, width=8, also_allowed=(str(cache / "blobs"), str(disk))
    )
    manifest = prepare(spec, tmp_path / "out")
    assert manifest is not None
    assert manifest.fields["counts"]["rows_skipped"] == {"absolute_path": 1}
    dataset = VideoRecordsSpec(folder=str(tmp_path / "out"))
    drawn = [dataset.clip("train", 0, i) for i in range(3)]
    clips = {clip["name"]: clip["caption"] for clip in drawn}
    names = ("a.mp4", "b.mp4", str(disk / "c.mp4"))
    assert clips == {name: f"of {path}" for name, path in zip(names, paths[:3], strict=True)}


def test_a_link_to_a_video_of_the_folder_is_no_second_video(tmp_path, caplog):
    """Else one name could be trained on and the other held out."""
    root = touch(tmp_path / "root", "raw/a.mp4", "raw/a.txt", "raw/b.mp4", ".git/annex/c.mp4")
    (root / "val").mkdir()
    for link, target in (
        ("val/a.mp4", "../raw/a.mp4"),  # with the same text
        ("val/a.txt", "../raw/a.txt"),
        ("b_again.mp4", "raw/b.mp4"),  # with none
        ("b_twice.mp4", "b_again.mp4"),  # by way of another
        ("raw/told.mp4", "b.mp4"),  # with a text of its own
        ("c.mp4", ".git/annex/c.mp4"),  # the only name that is not hidden
        ("d.mp4", "nowhere.mp4"),
    ):
        (root / link).symlink_to(target)
    (root / "raw" / "told.txt").write_text("of b")
    with caplog.at_level("INFO", logger="absl"):
        clips, skipped = read(root)
    assert [(clip.path, clip.caption) for clip in clips] == [
        ("c.mp4", ""), ("raw/a.mp4", "x"), ("raw/b.mp4", ""), ("raw/told.mp4", "of b"),
    ]  # fmt: skip
    assert [(bad.path, bad.reason) for bad in skipped] == [("d.mp4", "missing_file")]
    assert "3 links to videos that lie in the folder anyway are left out" in caplog.text
    assert "belong to no video" not in caplog.text
    # What a table names, its author wants.
    table = write(tmp_path, "t.csv", "video\nraw/a.mp4\nval/a.mp4\n")
    assert [clip.path for clip in read(root, table).clips] == ["raw/a.mp4", "val/a.mp4"]
