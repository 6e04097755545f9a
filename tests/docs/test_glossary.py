"""docs/glossary.md has the words that people search, each explained and with a place to go on."""

import re

import pytest

from tests.tiny import REPO

ROWS = re.findall(
    r"^\| \*\*(.+?)\*\* \| (.+) \|$", (REPO / "docs" / "glossary.md").read_text(), re.M
)
WORDS = [word for name, _ in ROWS for word in name.split(", ")]


def test_the_words_that_people_search_are_there() -> None:
    searched = (
        *("LoRA", "EMA", "FSDP", "MFU", "FVD", "CFG", "DDIM", "Flow matching", "VAE", "Latent"),
        *("Stride", "SNR", "Pod", "GSPMD", "Wan", "DiT", "Safetensors", "Mesh", "Vanilla twin"),
    )
    assert set(searched) <= set(WORDS)


def test_words_stand_once_and_in_order() -> None:
    names = [name.lower() for name, _ in ROWS]
    assert names == sorted(names) and len(set(WORDS)) == len(WORDS)


@pytest.mark.parametrize("name, text", ROWS, ids=[name for name, _ in ROWS])
def test_a_word_has_a_sentence_or_two_and_a_link(name: str, text: str) -> None:
    assert re.search(r"\]\([\w/.]+\.md", text), name
    plain = re.sub(r"\]\([^)]*\)", "]", text)
    assert 20 < len(plain) < 330 and plain.endswith(".")
