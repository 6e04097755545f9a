"""Tables are read by column name; whatever is wrong in a row skips that row, by name."""

import json
import os

import pytest

from tpdiff_jax.clips.bad_clips import REASONS, BadClipError
from tpdiff_jax.preparation.caption_tables import Columns, read_sources
from tpdiff_jax.preparation.clip_source import check_contained, clean_caption, to_score, to_split

OPENVID_HEADER = (
    "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,"
    "fps,seconds"
)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "sub/c.webm"):
        (folder / name).write_bytes(b"x")
    return folder


def read(root, table=None, columns=None, max_caption_bytes=4096):
    return read_sources(root, table, columns or Columns(), max_caption_bytes=max_caption_bytes)


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_openvids_csv_is_read_with_the_default_columns(root, tmp_path):
    table = write(
        tmp_path,
        "OpenVid-1M.csv",
        f"{OPENVID_HEADER}\n"
        'a.mp4,"A cat, asleep.",5.25,3.5,0.99,static,120,30.0,4.0\n'
        "b.mp4,A dog.,,nan,0.98,pan_left,60,30.0,2.0\n",
    )
    (a, b), skipped = read(root, table)
    assert (a.path, a.caption, a.aesthetic, a.motion) == ("a.mp4", "A cat, asleep.", 5.25, 3.5)
    assert (b.aesthetic, b.motion, b.split) == (None, None, "")
    assert skipped == []


def test_columns_are_found_by_name_wherever_they_stand(root, tmp_path):
    table = write(tmp_path, "t.csv", "text,moves,file,part\nhello,2,a.mp4,validation\n")
    columns = Columns(path="file", caption="text", motion="moves", split="part")
    (clip,), _ = read(root, table, columns)
    assert (clip.path, clip.caption, clip.motion, clip.split) == ("a.mp4", "hello", 2.0, "test")


def test_json_lines_are_read(root, tmp_path):
    rows = [{"video": "sub/c.webm", "caption": "c", "motion score": 7}, {"video": "a.mp4"}]
    table = write(tmp_path, "t.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n\n")
    (c, a), skipped = read(root, table)
    assert (c.path, c.caption, c.motion) == ("sub/c.webm", "c", 7.0)
    assert (a.path, a.caption) == ("a.mp4", "")
    assert skipped == []


def test_msr_vtt_takes_the_first_sentence_of_each_video_and_its_split(root, tmp_path):
    for name in ("video0.mp4", "video7.mp4"):
        (root / name).write_bytes(b"x")
    content = {
        "videos": [
            {"video_id": "video0", "split": "train", "id": 0},
            {"video_id": "video7", "split": "validate", "id": 7},
        ],
        "sentences": [
            {"video_id": "video7", "sen_id": 40, "caption": "later"},
            {"video_id": "video7", "sen_id": 3, "caption": "first of seven"},
            {"video_id": "video0", "sen_id": 5, "caption": "of zero"},
        ],
    }
    clips, _ = read(root, write(tmp_path, "videodatainfo.json", json.dumps(content)))
    assert [(c.path, c.caption, c.split) for c in clips] == [
        ("video0.mp4", "of zero", "train"),
        ("video7.mp4", "first of seven", "test"),
    ]


def test_without_a_table_text_files_beside_the_videos_are_captions(root):
    (root / "a.txt").write_text("  a caption\nof two lines\n")
    (root / "notes.txt").write_text("no video of this name")
    clips, skipped = read(root)
    assert [(c.path, c.caption) for c in clips] == [
        ("a.mp4", "a caption of two lines"),
        ("b.mp4", ""),
        ("sub/c.webm", ""),
    ]
    assert skipped == []


MALICIOUS = {
    "/etc/passwd": "absolute_path",
    "C:/Windows/x.mp4": "absolute_path",
    "../secret.mp4": "parent_folder",
    "sub/../../secret.mp4": "parent_folder",
    "sub\\..\\secret.mp4": "backslash",
    "a.mp4\0.txt": "nul_byte",
    "link_out.mp4": "outside_root",
    "folder_out/secret.mp4": "outside_root",
    "circle": "missing_file",
    "nothing.mp4": "missing_file",
    "n" * 5000: "missing_file",
    "sub": "not_a_file",
    "pipe.mp4": "not_a_file",
    "": "empty_path",
}


@pytest.fixture
def trapped_root(root, tmp_path):
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (root / "link_out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "folder_out").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    (root / "inside.mp4").symlink_to(root / "a.mp4")
    os.mkfifo(root / "pipe.mp4")
    return root


@pytest.mark.parametrize("path", MALICIOUS)
def test_paths_that_lead_elsewhere_are_refused_by_name(trapped_root, path):
    with pytest.raises(BadClipError) as bad:
        check_contained(trapped_root.resolve(), path)
    assert bad.value.reason == MALICIOUS[path]


def test_a_link_that_stays_inside_is_followed(trapped_root):
    assert check_contained(trapped_root.resolve(), "inside.mp4").name == "a.mp4"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_malicious_rows_are_skipped_and_the_others_read(trapped_root, tmp_path, kind):
    paths = ["a.mp4", *MALICIOUS, "b.mp4"]
    if kind == "csv":
        lines = ["video,caption", *(f'"{path}",c' for path in paths)]
    else:
        lines = [json.dumps({"video": path, "caption": "c"}) for path in paths]
    clips, skipped = read(trapped_root, write(tmp_path, f"t.{kind}", "\n".join(lines)))
    assert [clip.path for clip in clips] == ["a.mp4", "b.mp4"]
    assert [bad.reason for bad in skipped] == list(MALICIOUS.values())
    assert all(len(bad.path) <= 200 for bad in skipped)
    assert {bad.reason for bad in skipped} <= set(REASONS)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "sidecar"])
def test_a_megabyte_caption_skips_its_row(root, tmp_path, kind):
    caption, table = "x" * 2**20, None
    if kind == "csv":
        table = write(tmp_path, "t.csv", f"video,caption\na.mp4,{caption}\nb.mp4,b\n")
    elif kind == "jsonl":
        rows = [{"video": "a.mp4", "caption": caption}, {"video": "b.mp4"}]
        table = write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows)))
    else:
        (root / "a.txt").write_text(caption)
    clips, (bad,) = read(root, table)
    assert "b.mp4" in [clip.path for clip in clips]
    assert (bad.path, bad.reason) == ("a.mp4", "caption_too_long")


def test_the_cap_counts_bytes_and_not_characters():
    assert clean_caption("é" * 50, 100) == "é" * 50
    with pytest.raises(BadClipError, match="caption_too_long"):
        clean_caption("é" * 51, 100)


def test_control_and_invisible_characters_are_stripped():
    assert clean_caption("a\x00b\x1b[31mc\r\n\td\u202ee\ud800f", 100) == "ab[31mc def"


def test_what_joins_and_parts_letters_stays():
    """ZWNJ tells Persian words apart, ZWJ makes one emoji of several; other marks are stripped."""
    text = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f467"
    assert clean_caption(f"\u200e{text}\ufeff\u200b", 100) == text


def test_malformed_rows_are_skipped(root, tmp_path):
    table = write(tmp_path, "t.csv", 'video,caption\na.mp4\nb.mp4,b,extra\n\nsub/c.webm,"c"\n')
    clips, skipped = read(root, table)
    assert [clip.path for clip in clips] == ["sub/c.webm"]
    assert [bad.reason for bad in skipped] == ["malformed_row"] * 2
    lines = ["{", "[]", '{"video": 3}', '{"video": "a.mp4", "caption": {}}', "[" * 10_000]
    table = write(tmp_path, "t.jsonl", "\n".join([*lines, '{"video": "b.mp4"}']))
    clips, skipped = read(root, table)
    assert [clip.path for clip in clips] == ["b.mp4"]
    assert [bad.reason for bad in skipped] == ["malformed_row"] * len(lines)


def test_a_path_counts_once(root, tmp_path):
    table = write(tmp_path, "t.csv", "video,caption\na.mp4,first\nsub//c.webm,c\n./a.mp4,again\n")
    clips, (bad,) = read(root, table)
    assert [(clip.path, clip.caption) for clip in clips] == [
        ("a.mp4", "first"),
        ("sub/c.webm", "c"),
    ]
    assert bad.reason == "duplicate"


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("t.csv", "file,caption\na.mp4,c\n", "prepare.path_column"),
        ("t.csv", "", "prepare.path_column"),
        ("t.jsonl", '{"file": "a.mp4"}\n', "prepare.path_column"),
        ("t.json", "{}", "prepare.table"),
        ("t.json", "[" * 100_000, "prepare.table"),
        ("t.parquet", "", "prepare.table"),
    ],
)
def test_a_table_that_cannot_be_used_names_the_field(root, tmp_path, name, text, field):
    with pytest.raises(ValueError, match=field):
        read(root, write(tmp_path, name, text))


def test_missing_folders_and_tables_name_the_field(root, tmp_path):
    with pytest.raises(ValueError, match="prepare.source"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="prepare.table"):
        read(root, tmp_path / "nothing.csv")


@pytest.mark.parametrize("value", ["", "high", None, "nan", "inf", [], 10**400])
def test_a_score_that_is_no_finite_number_is_missing(value):
    assert to_score(value) is None


def test_scores_and_splits_are_read_as_written():
    assert (to_score("3.5"), to_score(0), to_score("-1e3")) == (3.5, 0.0, -1000.0)
    assert [to_split(s) for s in ("train", " VAL ", "test", "dev", None)] == [
        *("train", "test", "test", "test", "")
    ]
