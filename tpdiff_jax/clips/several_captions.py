"""Several captions of one clip: how their arrays are stored, and one of them taken out again.

    stored:  name -> [k, ...], the arrays of caption 0 to n - 1, then zeros; k is the data set's
    taken:   name -> [...], as if the clip had this caption alone

Where k is 1, arrays have no such axis. The video belongs to all captions and has none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SETTING = "captions_per_video"


def captions_per_video(manifest_fields: Mapping[str, Any]) -> int:
    """Return k of a data set, 1 or more, from its manifest."""
    return max(1, int(manifest_fields.get("settings", {}).get(SETTING, 1)))


def stack_captions(texts: Sequence[Mapping[str, np.ndarray]], k: int) -> dict[str, np.ndarray]:
    """Return the arrays of a clip's captions as they are stored.

    Args:
        texts: arrays of each caption by name, one to k captions.
        k: captions that a clip of the data set has room for.

    Raises:
        ValueError: for more captions than k, or arrays that differ in shape.
    """
    if not 1 <= len(texts) <= k:
        raise ValueError(f"{len(texts)} captions of a clip; allowed: 1 to {k}")
    if k == 1:
        return dict(texts[0])
    return {
        name: np.stack(
            [*(text[name] for text in texts)] + [np.zeros_like(array)] * (k - len(texts))
        )
        for name, array in texts[0].items()
    }


def take_caption(arrays: Mapping[str, np.ndarray], number: int, k: int) -> Mapping[str, np.ndarray]:
    """Return a stored clip's arrays with those of one caption.

    Args:
        arrays: of the record, "video" among them.
        number: of the caption, from 0.
        k: captions that a clip of the data set has room for.
    """
    if k == 1:
        return arrays
    return {name: array if name == "video" else array[number] for name, array in arrays.items()}


def facts_of_one(facts: Mapping[str, Mapping[str, Any]], k: int) -> dict[str, Mapping[str, Any]]:
    """Return dtype and shape of the arrays of a clip with one caption, from those stored.

    Args:
        facts: of each stored array by name, "video" among them.
        k: captions that a clip of the data set has room for.

    Raises:
        ValueError: for arrays without an axis of k captions.
    """
    for name, fact in facts.items():
        if k > 1 and name != "video" and list(fact["shape"][:1]) != [k]:
            raise ValueError(f"array {name!r} is {fact['shape']}; need {k} captions in front")
    return {
        name: fact if name == "video" or k == 1 else {**fact, "shape": list(fact["shape"][1:])}
        for name, fact in facts.items()
    }
