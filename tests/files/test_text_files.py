"""One reader of text: what editors save is read, anything else is named, nothing is replaced."""

import json

import pytest

from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.files.text_files import decode_text, is_damaged, open_text, read_text, text_lines
from tpdiff_jax.generation.prompts import SampleFlags, read_prompts
from tpdiff_jax.preparation.clip_source import clean_caption

TEXT = 'é, "日本" \U0001f600\nsecond\n'
ENCODINGS = {
    "utf-8": TEXT.encode(),
    "utf-8 with a mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "utf-16 little": b"\xff\xfe" + TEXT.encode("utf-16-le"),
    "utf-16 big": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "utf-32 little": b"\xff\xfe\x00\x00" + TEXT.encode("utf-32-le"),
    "utf-32 big": b"\x00\x00\xfe\xff" + TEXT.encode("utf-32-be"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_with_a_mark_is_read_whole_and_in_lines(tmp_path, name):
    path = tmp_path / "t.txt"
    path.write_bytes(ENCODINGS[name])
    assert read_text(path) == TEXT
    with open_text(path) as file:
        assert list(file) == ['é, "日本" \U0001f600\n', "second\n"]
    assert read_prompts(str(path)) == ['é, "日本" \U0001f600', "second"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("café\nnaïve".encode("latin-1"), "line 1, byte 0xe9; perhaps windows-1252"),
        (b"plain\nsmart \x93quotes\x94\n", "line 2, byte 0x93; perhaps windows-1252"),
        ("猫が走る。犬が眠る。".encode("shift_jis"), "shift_jis"),
        ("一只猫在跑".encode("gb18030"), "gb18030"),
        ("plain".encode("utf-16-le"), "UTF-16-LE without"),
        ("plain".encode("utf-16-be"), "UTF-16-BE without"),
        (b"\xff\xfe" + "ab".encode("utf-16-le") + b"c", "not utf-16"),
        (b"PK\x03\x04rest", "Excel"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (b"PAR1rest", "Parquet"),
    ],
)
def test_other_encodings_and_other_files_are_named(tmp_path, content, what):
    with pytest.raises(ValueError, match=what):
        decode_text(content)
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.json .*" + what):
        read_json(path)
    with pytest.raises(ValueError, match="--prompts=.*" + what):
        read_prompts(str(path))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_json_is_read_with_and_without_a_mark(tmp_path, mark):
    encoding = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(mark, "utf-8")
    path = tmp_path / "t.json"
    path.write_bytes(mark + json.dumps({"a": "é"}, ensure_ascii=False).encode(encoding))
    assert read_json(path) == {"a": "é"}


def test_a_prompt_is_a_line_of_an_editor_and_nothing_less(tmp_path):
    """Python's splitlines also cuts at form feeds, file separators and Unicode's line ends."""
    inside = ["a\u2028b", "c\u2029d", "e\x0cf", "g\x0bh", "i\x85j", "k\x1cl", "m\x1dn", "o\x1ep"]
    path = tmp_path / "prompts.txt"
    path.write_bytes("\r\n".join(inside).encode() + b"\rlast\n\n")
    on_one_line = [f"{text[0]} {text[2]}" for text in inside]  # as captions are
    assert read_prompts(str(path)) == [*on_one_line, "last"]
    assert text_lines("a\r\nb\rc\n\nd") == ["a", "b", "c", "", "d"] and text_lines("") == []


def test_prompts_are_cleaned_as_the_captions_of_clips_are(tmp_path):
    """A network sees a prompt as it has seen that caption in training, or another text."""
    text = "\ta\x00 \u202ecat,\u3000\u2028asleep\u200b \U0001f408\u200d\u2b1b\ufeff"
    path = tmp_path / "prompts.txt"
    path.write_text(f"{text}\n\u200b \nb\n")
    assert read_prompts(str(path)) == [clean_caption(text, 99), "b"]
    assert read_prompts(str(path))[0] == "a cat, asleep \U0001f408\u200d\u2b1b"
    assert SampleFlags(captions=[text]).texts == [clean_caption(text, 99)]


def test_a_damaged_line_is_known_by_itself(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("é\n".encode() + b"\xe9\n" + b"plain\n")
    with open_text(path) as file:
        assert [is_damaged(line) for line in file] == [False, True, False]
