"""Tables of captions: damage costs its own row, columns are found or named, every form is read."""

import json

import pytest

from tests.preparation.test_caption_tables import read, root, write  # noqa: F401
from tpdiff_jax.preparation.caption_tables import read_sources
from tpdiff_jax.preparation.clip_source import to_split
from tpdiff_jax.preparation.column_names import Columns


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for i in range(20):
        (folder / f"v{i:02d}.mp4").write_bytes(b"x")
    return folder


def rows_of(captions):
    return [f"v{i:02d}.mp4,{caption}" for i, caption in enumerate(captions)]


def captions_of(sources):
    return {clip.path: clip.caption for clip in sources.clips}


PLAIN = [f"clip {i}" for i in range(20)]


@pytest.mark.parametrize(
    "damage",
    [
        {9: '"a quote that never closes'},
        {9: '"closes here" and goes on'},
        {9: '"opens here', 14: 'closes there"'},
        {9: '"opens here', 14: '"opens again'},
        {19: '"at the end'},
        {0: '"at the start'},
        {9: "one, two"},
        {3: '"opens', 9: '"', 12: '"closes" or not"'},
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_damaged_line_of_csv_costs_itself_and_is_named(videos, tmp_path, damage, quoted):
    captions = [f'"{text}, said"' if quoted else text for text in PLAIN]
    for i, text in damage.items():
        captions[i] = text
    table = write(tmp_path, "t.csv", "video,caption\n" + "\n".join(rows_of(captions)) + "\n")
    sources = read(videos, table)
    whole = {f"v{i:02d}.mp4": captions[i].strip('"') for i in range(20) if i not in damage}
    read_now = captions_of(sources)
    assert {path: read_now[path] for path in whole} == whole
    # A quote that only closes is a character of its caption; any other damage is a bad row.
    lost = sorted(set(range(20)) - {int(path[1:3]) for path in read_now})
    assert [bad.detail.split(":")[0] for bad in sources.skipped] == [f"line {i + 2}" for i in lost]
    assert lost and {bad.reason for bad in sources.skipped} == {"malformed_row"}


def test_captions_of_several_lines_stay_whole(videos, tmp_path):
    text = 'video,caption\nv00.mp4,"one\ntwo, three\n\nfour ""quoted"""\nv01.mp4,after\n'
    sources = read(videos, write(tmp_path, "t.csv", text))
    assert captions_of(sources) == {
        "v00.mp4": 'one two, three four "quoted"', "v01.mp4": "after"
    }  # fmt: skip
    assert sources.skipped == []


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ('{"video": "v01.mp4", "caption": "a", "caption": "b"}', "'caption' stands there twice"),
        ('{"video": "v01.mp4", "caption": "a"', "JSONDecodeError"),
        ('{"video": "v01.mp4"} {"video": "v02.mp4"}', "JSONDecodeError"),
        ('[{"video": "v01.mp4"}]', "not a JSON object"),
        ('{"video": "v01.mp4", "caption": 5}', "must be text"),
    ],
)
def test_a_damaged_line_of_json_costs_itself_and_is_named(videos, tmp_path, line, detail):
    lines = ['{"video": "v00.mp4", "caption": "a"}', line, '{"video": "v03.mp4", "caption": "b"}']
    clips, (bad,) = read(videos, write(tmp_path, "t.jsonl", "\n".join(lines)))
    assert [clip.path for clip in clips] == ["v00.mp4", "v03.mp4"]
    assert bad.reason == "malformed_row" and bad.detail.startswith("line 2: ")
    assert detail in bad.detail


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_line_in_another_encoding_is_left_out_by_name(videos, tmp_path, kind):
    lines = {
        "csv": ["video,caption", "v00.mp4,caf\xe9", "v01.mp4,plain"],
        "jsonl": ['{"video": "v00.mp4", "caption": "caf\xe9"}', '{"video": "v01.mp4"}'],
    }
    path = tmp_path / f"t.{kind}"
    path.write_bytes("\n".join(lines[kind]).encode("latin-1"))
    clips, (bad,) = read(videos, path)
    assert [clip.path for clip in clips] == ["v01.mp4"]
    assert bad.reason == "wrong_encoding" and "windows-1252" in bad.detail
    assert bad.detail.startswith("line ")


MARKS = [(b"", "utf-8"), (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"),
         (b"\xfe\xff", "utf-16-be")]  # fmt: skip


@pytest.mark.parametrize(("mark", "encoding"), MARKS)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "msr-vtt.json", "txt"])
def test_byte_order_marks_lose_no_row(videos, tmp_path, kind, mark, encoding):
    pairs = [(f"v{i:02d}.mp4", f"clip é {i}") for i in range(3)]
    objects = [{"video": path, "caption": text} for path, text in pairs]
    msr_vtt = {
        "videos": [{"video_id": path[:3], "split": "train"} for path, _ in pairs],
        "sentences": [
            {"video_id": path[:3], "sen_id": i, "caption": text}
            for i, (path, text) in enumerate(pairs)
        ],
    }
    content = {
        "csv": "video,caption\n" + "\n".join(",".join(pair) for pair in pairs),
        "tsv": "video\tcaption\n" + "\n".join("\t".join(pair) for pair in pairs),
        "jsonl": "\n".join(json.dumps(o, ensure_ascii=False) for o in objects),
        "json": json.dumps(objects, ensure_ascii=False),
        "msr-vtt.json": json.dumps(msr_vtt, ensure_ascii=False),
        "txt": "\n".join(path for path, _ in pairs),
    }[kind]
    table = tmp_path / ("videos.txt" if kind == "txt" else f"t.{kind}")
    table.write_bytes(mark + content.encode(encoding))
    if kind == "txt":
        texts = "\n".join(text for _, text in pairs)
        (tmp_path / "prompt.txt").write_bytes(mark + texts.encode(encoding))
    sources = read(videos, table)
    assert captions_of(sources) == dict(pairs) and sources.skipped == []


SAME = {"v00.mp4": "a cat, asleep", "v01.mp4": "a dog"}


@pytest.mark.parametrize(
    "text",
    [
        'video,caption\nv00.mp4,"a cat, asleep"\nv01.mp4,a dog\n',
        'video, caption\nv00.mp4, "a cat, asleep"\nv01.mp4, a dog\n',
        ' Video , CAPTION\nv00.mp4 ,"a cat, asleep"\nv01.mp4,a dog \n',
        'file_name,text\nv00.mp4,"a cat, asleep"\nv01.mp4,a dog\n',
        'video_path,prompt\nv00.mp4,"a cat, asleep"\nv01.mp4,a dog\n',
        'path,text,num_frames\nv00.mp4,"a cat, asleep",51\nv01.mp4,a dog,51\n',
        'file_path,text,type\nv00.mp4,"a cat, asleep",video\nv01.mp4,a dog,video\n',
        "video;caption\nv00.mp4;a cat, asleep\nv01.mp4;a dog\n",
        "sep=;\nvideo;caption\nv00.mp4;a cat, asleep\nv01.mp4;a dog\n",
        "media_path\tcaption\nv00.mp4\ta cat, asleep\nv01.mp4\ta dog\n",
        'caption,video\r\n"a cat, asleep",v00.mp4\r\na dog,v01.mp4\r\n',
    ],
)
def test_columns_and_separators_of_others_are_read_as_they_are(videos, tmp_path, text):
    sources = read(videos, write(tmp_path, "t.csv", text))
    assert captions_of(sources) == SAME and sources.skipped == []


def write_forms(videos, form):
    """The same captions in the forms of other trainers, as they lie in a data set's folder."""
    pairs, names = list(SAME.items()), {"v00.mp4", "v01.mp4"}
    for path in videos.iterdir():
        if path.name not in names:
            path.unlink()

    def lines(path, caption):
        return "\n".join(json.dumps({path: p, caption: c}) for p, c in pairs)

    if form == "hub csv":
        body = "\n".join(f'{p},"{c}"' for p, c in pairs)
        (videos / "metadata.csv").write_text(f"file_name,text\n{body}\n")
    elif form == "hub jsonl":
        (videos / "metadata.jsonl").write_text(lines("file_name", "text"))
    elif form == "hub splits":
        for (name, caption), split in zip(pairs, ("train", "validation"), strict=True):
            (videos / split).mkdir()
            (videos / name).rename(videos / split / name)
            (videos / split / "metadata.csv").write_text(f'file_name,text\n{name},"{caption}"\n')
    elif form == "lists":
        (videos / "videos").mkdir()
        for name, _ in pairs:
            (videos / name).rename(videos / "videos" / name)
        (videos / "videos.txt").write_text("".join(f"videos/{name}\n" for name, _ in pairs))
        (videos / "prompt.txt").write_text("".join(f"{caption}\n" for _, caption in pairs))
    elif form == "list of objects":
        content = [{"file_path": p, "text": c, "type": "video"} for p, c in pairs]
        (videos / "metadata.json").write_text(json.dumps(content))
    elif form == "lines in json":
        (videos / "metadata.json").write_text(lines("video_path", "caption") + "\n")
    elif form == "data":
        content = {"data": [{"video_path": p, "caption": c} for p, c in pairs]}
        (videos / "metadata.json").write_text(json.dumps(content))
    elif form == "captions by video":
        (videos / "captions.json").write_text(json.dumps({p: [c] for p, c in pairs}))
    else:
        for name, caption in pairs:
            stem, suffix = form.split("+")
            target = {"stem": name[:-4], "name": name, "upper": name[:-4].upper()}[stem]
            (videos / (target + suffix)).write_text(caption)


FORMS = ["lines in json", "hub csv", "hub jsonl", "hub splits", "lists", "list of objects", "data",
         "captions by video", "stem+.txt", "stem+.TXT", "name+.txt", "name+.TXT", "upper+.TXT",
         "stem+.caption"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_folders_of_other_trainers_are_read_as_they_are_and_the_log_says_how(
    videos, form, caplog
):
    write_forms(videos, form)
    with caplog.at_level("INFO", logger="absl"):
        clips, skipped = read(videos)
    assert {clip.path.split("/")[-1]: clip.caption for clip in clips} == SAME and skipped == []
    assert "captions: 2 of 2 videos" in caplog.text
    assert ("no table" in caplog.text) == ("+" in form)
    assert ("found and read is" in caplog.text) == ("+" not in form)
    if form == "hub splits":
        assert {clip.path: clip.split for clip in clips} == {
            "train/v00.mp4": "train", "validation/v01.mp4": "test"
        }  # fmt: skip


def test_json_lines_of_absolute_paths_are_read_as_musubi_documents_them(videos, tmp_path):
    lines = [json.dumps({"video_path": str(videos / p), "caption": c}) for p, c in SAME.items()]
    sources = read(videos, write(tmp_path, "m.jsonl", "\n".join(lines)))
    assert captions_of(sources) == SAME and sources.skipped == []


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (("metadata.csv", "metadata.jsonl"), "several tables"),
        (("metadata.csv", "sub/metadata.csv"), "several tables"),
        (("metadata.csv", "captions.json"), "several tables"),
        (("metadata.parquet",), "write it as CSV"),
        (("videos.txt",), "needs one list of captions"),
        (("metadata.json",), "none of the forms"),
        (("sub/metadata.json",), "none of the forms"),
    ],
)
def test_what_cannot_be_chosen_or_read_is_refused_by_name(videos, files, what):
    (videos / "sub").mkdir()
    for name in files:
        text = '{"fps": 30}' if "json" in name else "video,caption\nv00.mp4,a\n"
        (videos / name).write_text(text)
    with pytest.raises(ValueError, match=rf"prepare\.table=.*{what}"):
        read(videos)
    if "parquet" not in files[0]:
        assert len(read_sources(videos, "sidecar", Columns(), max_caption_bytes=99).clips) == 20


def test_lists_of_unequal_length_are_refused(videos, tmp_path):
    write(tmp_path, "prompts.txt", "one\n\ntwo\n")
    table = write(tmp_path, "videos.txt", "v00.mp4\nv01.mp4\n")
    with pytest.raises(ValueError, match=r"videos.txt has 2 lines and prompts.txt 3"):
        read(videos, table)


def test_videos_that_the_folder_s_table_does_not_name_are_told(videos, caplog):
    (videos / "metadata.csv").write_text("file_name,text\nv00.mp4,a\n")
    read(videos)
    assert "19 videos are in no row of the table, such as v01.mp4" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "video,description\nv00.mp4,a\n"),
        ("t.csv", "video,Caption (English)\nv00.mp4,a\n"),
        ("t.jsonl", '{"video": "v00.mp4", "description": "a"}\n'),
        ("t.json", '[{"video": "v00.mp4", "description": "a"}]'),
    ],
)
def test_a_missing_column_of_captions_is_an_error_or_a_warning_with_the_columns(
    videos, tmp_path, caplog, name, text
):
    table = write(tmp_path, name, text)
    there = "Caption (English)" if "English" in text else "description"
    said = f"prepare.caption_column='caption' is no column of {name}; it has: video, {there}"
    assert read(videos, table).clips[0].caption == ""
    assert said in caplog.text and "captions: 0 of 1 videos" in caplog.text
    with pytest.raises(ValueError) as error:
        read_sources(videos, table, Columns(), max_caption_bytes=99, needs_captions=True)
    assert said in str(error.value)
    # The user's own word for it is taken, and one that is no column is never replaced.
    assert read(videos, table, Columns(caption=there)).clips[0].caption == "a"
    caplog.clear()
    read(videos, write(tmp_path, "u.csv", "video,text\nv00.mp4,a\n"), Columns(caption="words"))
    assert "prepare.caption_column='words' is no column" in caplog.text


@pytest.mark.parametrize("caption", ["", "   ", "\t\u2003", "\u200b\u200b", '""'])
def test_a_caption_of_blanks_is_none_and_with_a_text_encoder_the_row_is_bad(
    videos, tmp_path, caplog, caption
):
    table = write(tmp_path, "t.csv", f"video,caption\nv00.mp4,{caption}\nv01.mp4,a dog\n")
    assert captions_of(read(videos, table)) == {"v00.mp4": "", "v01.mp4": "a dog"}
    assert "captions: 1 of 2 videos" in caplog.text
    needs = {"max_caption_bytes": 99, "needs_captions": True}
    clips, (bad,) = read_sources(videos, table, Columns(), **needs)
    assert [clip.path for clip in clips] == ["v01.mp4"]
    assert (bad.path, bad.reason, bad.detail) == ("v00.mp4", "no_caption", "line 2")
    table = write(tmp_path, "t.csv", f"video,caption\nv00.mp4,{caption}\n")
    with pytest.raises(ValueError, match=r"captions: 0 of 1 videos; prepare\.text_encoder needs"):
        read_sources(videos, table, Columns(), **needs)


def test_no_text_beside_any_video_is_an_error_with_a_text_encoder(videos, caplog):
    (videos / "clip_00.txt").write_text("belongs to nothing")
    assert len(read(videos).clips) == 20
    assert "captions: 0 of 20 videos" in caplog.text
    assert "1 text files belong to no video, such as clip_00.txt" in caplog.text
    with pytest.raises(ValueError, match="captions: 0 of 20 videos"):
        read_sources(videos, None, Columns(), max_caption_bytes=99, needs_captions=True)


def test_texts_beside_videos_of_names_that_differ_in_case_alone(tmp_path):
    for name in ("a.mp4", "A.mp4", "b.MP4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a.txt").write_text("small")
    (tmp_path / "B.Txt").write_text("b")
    assert captions_of(read(tmp_path)) == {"a.mp4": "small", "A.mp4": "", "b.MP4": "b"}


@pytest.mark.parametrize("content", ["caf\xe9".encode("latin-1"), "猫".encode("shift_jis")])
def test_a_text_file_in_another_encoding_is_named(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(content)
    _, (bad,) = read(tmp_path)
    assert (bad.path, bad.reason) == ("a.mp4", "wrong_encoding") and "a.txt" in bad.detail


SPLITS = {
    "train": ["train", "Training", " TRAIN ", "trn", "tr-ain"],
    "test": ["test", "testing", "Val", "valid", "validate", "validation", "dev", "development",
             "eval", "evaluation", "holdout", "held-out", "Held Out", "HOLD_OUT"],
    "": ["", "  ", None, float("nan")],
}  # fmt: skip


@pytest.mark.parametrize(("split", "names"), SPLITS.items())
def test_the_common_names_of_splits_are_known(split, names):
    assert {to_split(name) for name in names} == {split}


@pytest.mark.parametrize("name", ["fold3", "0", "1", "extra", "nan", "trainval", "public", "None"])
def test_an_unknown_split_is_never_trained_on(videos, tmp_path, name):
    table = write(tmp_path, "t.csv", f"video,split\nv00.mp4,train\nv01.mp4,{name}\n")
    clips, (bad,) = read(videos, table)
    assert [clip.path for clip in clips] == ["v00.mp4"]
    assert (bad.path, bad.reason) == ("v01.mp4", "unknown_split")
    assert repr(name) in bad.detail and "validation" in bad.detail


FOLDERS = [
    (("train/a", "val/b"), ["train", "test"], "splits are those of the folders train, val"),
    (("data/Training/a", "data/held-out/b"), ["train", "test"], "folders Training, held-out"),
    (("x/y/train/a/c", "x/y/dev/b", "x/y/test/d"), ["train", "test", "test"], "splits are"),
    (("train/a", "train/b"), ["", ""], ""),
    (("val/a", "val/b"), ["", ""], ""),
    (("val/a", "test/b"), ["", ""], "folders test, val are not taken for a split"),
    (("train/a", "val/b", "extra/c"), ["", "", ""], "folders val are not taken for a split"),
    (("cats/a", "test/b"), ["", ""], "folders test are not taken for a split"),
    (("train/a", "b"), ["", ""], ""),
    (("a", "train/b", "val/c"), ["", "", ""], "folders val are not taken for a split"),
    (("cat/train/a", "cat/val/b", "dog/train/c"), ["train", "test", "train"], "folders train, val"),
    (("x/cat/1/train/a", "x/dog/2/dev/b/c"), ["train", "test"], "splits are"),
    (("cat/train/a", "dog/test/b", "c/d"), ["", "", ""], "folders test are not taken for a split"),
    (("a", "b"), ["", ""], ""),
]


@pytest.mark.parametrize("with_table", [False, True])
@pytest.mark.parametrize(("paths", "splits", "said"), FOLDERS)
def test_folders_that_name_splits_are_not_mixed(tmp_path, caplog, paths, splits, said, with_table):
    source = tmp_path / "clips"
    for path in paths:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / f"{path}.mp4").write_bytes(b"x")
    names = "".join(f"{path}.mp4\n" for path in paths)
    table = write(tmp_path, "t.csv", f"video\n{names}") if with_table else None
    with caplog.at_level("INFO", logger="absl"):
        clips, _ = read(source, table)
    found = {clip.path: clip.split for clip in clips}
    assert [found[f"{path}.mp4"] for path in paths] == splits
    told = [text for text in ("splits are those", "not taken for a split") if text in caplog.text]
    assert said in caplog.text and bool(told) == bool(said)


def test_names_twice_say_how_the_rows_differ(videos, tmp_path):
    text = "video,caption,split\nv00.mp4,a,\nv00.mp4,a,\n./v00.mp4,b,\nv00.mp4,b,test\n"
    (clip,), bad = read(videos, write(tmp_path, "t.csv", text))
    assert clip.caption == "a" and {row.reason for row in bad} == {"duplicate"}
    assert [row.detail for row in bad] == [
        "line 3: as line 2",
        "line 4: another caption than line 2; prepare.captions_per_video keeps several",
        "line 5: another split than line 2 says",
    ]


SEVERAL = {
    "rows.csv": "video,caption\nv00.mp4,one\nv01.mp4,\nv00.mp4,two\nv00.mp4,three\nv01.mp4,x\n",
    "lists.jsonl": '{"video": "v00.mp4", "caption": ["one", " ", "two", "three"]}\n'
    '{"video": "v01.mp4", "caption": "x"}\n',
    "captions.json": '{"v00.mp4": ["one", "two", "three"], "v01.mp4": "x"}',
    "msr.json": json.dumps({
        "videos": [{"video_id": "v00"}, {"video_id": "v01"}],
        "sentences": [
            {"video_id": "v00", "sen_id": i, "caption": c}
            for i, c in ((7, "three"), (1, "one"), (4, "two"))
        ] + [{"video_id": "v01", "sen_id": 9, "caption": "x"}],
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_several_captions_of_a_video_are_kept_in_order_and_what_is_left_out_is_told(
    videos, tmp_path, caplog, name
):
    table = write(tmp_path, name, SEVERAL[name])
    for most in (2, 3, 20):
        clips, skipped = read_sources(
            videos, table, Columns(), max_caption_bytes=99, captions_per_video=most
        )
        assert [clip.captions for clip in clips] == [("one", "two", "three")[:most], ("x",)]
        assert skipped == []
        assert ("captions are left out" in caplog.text) == (most < 3)
        caplog.clear()
    clips, skipped = read(videos, table)
    assert [clip.captions for clip in clips] == [("one",), ("x",)]
    told = len(skipped) if name == "rows.csv" else "2 further captions are left out" in caplog.text
    assert told == (2 if name == "rows.csv" else True)


REPEATED = {
    "rows.csv": "video,caption\nv00.mp4,one\nv00.mp4,two\nv00.mp4,one\nv01.mp4,x\nv01.mp4,x\n",
    "lists.json": '{"v00.mp4": ["one", "two", "one"], "v01.mp4": ["x", "x"]}',
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_caption_that_a_video_has_twice_is_kept_once_and_counted(videos, tmp_path, caplog, name):
    table = write(tmp_path, name, REPEATED[name])
    clips, skipped = read_sources(
        videos, table, Columns(), max_caption_bytes=99, captions_per_video=5
    )
    assert [clip.captions for clip in clips] == [("one", "two"), ("x",)] and skipped == []
    assert "2 further captions are left out" in caplog.text and "repeated" in caplog.text


def test_rows_of_a_video_that_say_another_split_or_no_caption_stay_bad_rows(videos, tmp_path):
    text = "video,caption,split\nv00.mp4,one,\nv00.mp4,one,test\nv00.mp4,,\nv01.mp4,,\nv01.mp4,,\n"
    clips, bad = read_sources(
        *(videos, write(tmp_path, "t.csv", text), Columns()),
        max_caption_bytes=99,
        captions_per_video=5,
    )
    assert [clip.captions for clip in clips] == [("one",), ()]
    assert [(row.reason, row.detail) for row in bad] == [
        ("duplicate", "line 3: another split than line 2 says"),
        ("duplicate", "line 4: as line 2"),
        ("duplicate", "line 6: as line 5"),
    ]


@pytest.mark.parametrize("blanks", ["", " ", "   \t", "\t"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_lines_of_blanks_alone_are_no_rows(videos, tmp_path, separator, blanks):
    lines = ["video,caption,x", blanks, "v00.mp4,one,1", blanks, "v01.mp4,two,2", blanks, blanks]
    text = "\n".join(line.replace(",", separator) for line in lines)
    clips, skipped = read(videos, write(tmp_path, "t.csv", text))
    assert [clip.caption for clip in clips] == ["one", "two"] and skipped == []


def test_a_column_that_stands_there_twice_or_could_be_two_is_refused(videos, tmp_path):
    for text, what in (
        ("video,caption,caption\nv00.mp4,a,b\n", "'caption' is twice"),
        ("video,text,prompt\nv00.mp4,a,b\n", "'caption' could be 'text' or 'prompt'"),
        ("path,file_name,caption\nv00.mp4,v01.mp4,b\n", "'video' could be 'path' or 'file_name'"),
        ("video,Caption,CAPTION\nv00.mp4,a,b\n", "could be 'Caption' or 'CAPTION'"),
    ):
        with pytest.raises(ValueError, match=what):
            read(videos, write(tmp_path, "t.csv", text))


@pytest.mark.parametrize("header", ["video,,", ",video,", "video, ,  ", "video"])
def test_columns_without_a_name_are_no_ones(videos, tmp_path, header):
    """As an index and trailing commas make them, also where the config says there is no caption."""
    row = ",".join("v03.mp4" if name == "video" else "1" for name in header.split(","))
    table = write(tmp_path, "t.csv", f"{header}\n{row}\n")
    columns = Columns(caption="", motion="", aesthetic=" ", split="")
    assert captions_of(read(videos, table, columns)) == {"v03.mp4": ""}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize(("name", "row"), [
    ("t.csv", "v01.mp4,one\n"), ("t.tsv", "v01.mp4\tone\n"),
    ("t.jsonl", '{"video": "v01.mp4", "caption": "one"}\n'),
])  # fmt: skip
def test_a_table_of_wide_characters_that_is_cut_is_named(videos, tmp_path, name, row, encoding):
    header = "" if name.endswith("l") else "video,caption\n".replace(",", row[7])
    path = tmp_path / name
    path.write_bytes((header + row * 3).encode(encoding)[:-1])
    with pytest.raises(
        ValueError, match=rf"prepare.table=.*{name}.*{encoding}.*behind line \d"
    ) as e:
        read(videos, path)
    assert not isinstance(e.value, UnicodeDecodeError) and "\n" not in str(e.value)


@pytest.mark.parametrize("video", [["v01"], {"a": 1}, [["v01"]]])
def test_ids_that_are_no_ids_are_no_traceback(videos, tmp_path, video):
    table = write(
        tmp_path, "t.json", json.dumps({"videos": [{"video_id": video}], "sentences": []})
    )
    with pytest.raises(ValueError, match="it is not MSR-VTT's JSON"):
        read(videos, table)


@pytest.mark.parametrize(("name", "text", "place"), [
    ("t.jsonl", '[{"video": "v01.mp4"}]', "line 1: not a JSON object"),
    ("t.json", '["v01.mp4", "v02.mp4"]', "entry 1: not a JSON object"),
    ("t.json", '{"video":\n"v01.mp4"}\n{"video":\n"v02.mp4"}', "line 1: not a JSON object: JSON"),
    ("t.ndjson", "\n\nv01.mp4\n", "line 3: not a JSON object: JSON"),
])  # fmt: skip
def test_a_table_without_a_single_row_says_why(videos, tmp_path, name, text, place):
    with pytest.raises(ValueError, match=f"none of its rows can be read; {place}"):
        read(videos, write(tmp_path, name, text))


def test_a_colon_behind_one_letter_is_a_name_like_others(videos):
    names = ["Q: why.mp4", "2:1 crop.mp4", "sub/a:b.mp4"]
    (videos / "sub").mkdir()
    for name in names:
        (videos / name).write_bytes(b"x")
        (videos / name).with_suffix(".txt").write_text(name)
    sources = read(videos)
    read_now = captions_of(sources)
    assert {name: read_now[name] for name in names} == {name: name for name in names}
    assert sources.skipped == []
