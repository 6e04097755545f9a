"""What others call the two splits: in tables, as folders and in TensorFlow Datasets."""

import re

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("val", "valid", "validate", "validating", "validation"), "test"),
    **dict.fromkeys(("dev", "devel", "development", "eval", "evaluate", "evaluation"), "test"),
}
"""Split by name without case, blanks, `-` and `_`; of several held-out ones the first is meant."""
_SEPARATORS = re.compile(r"[\s_-]+")


def split_key(name: str) -> str:
    """Return a split's name as `SPLIT_NAMES` has it: without case, blanks, `-` and `_`."""
    return _SEPARATORS.sub("", name).lower()


def find_split(name: str) -> str:
    """Return "train", "test" (validation splits too) or "" for a name of neither."""
    return SPLIT_NAMES.get(split_key(name), "")
