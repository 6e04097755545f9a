"""Bytes of one prepared clip: a JSON header, then its arrays, nothing that could run.

    "TPDC" | length of the header, uint32 | header | arrays

The header holds the clip's name, caption, further captions where there are any, and each array's
name, dtype and shape, in the order in which the arrays' bytes follow. Numbers are little-endian,
arrays in C order. The same clip gives the same bytes. ArrayRecord compresses records, losslessly,
and keeps the checksums that find damage.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tpdiff_jax.files.json_files import parse_json

MAGIC = b"TPDC"
PREFIX = struct.Struct("<4sI")
STORED_DTYPES = ("uint8", "bool", "int32", "float16", "float32")


class RecordError(ValueError):
    """The bytes are no intact record."""


class ClipRecord(NamedTuple):
    """A clip as it is stored.

    Attributes:
        name: of the clip: its video's path, with `#j` for the j-th of several clips.
        caption: text.
        arrays: "video" and whatever an encoder adds, such as "text" [l, d]; with an axis of
            captions in front where the data set has room for several (`several_captions`).
        other_captions: further captions of the same clip.
    """

    name: str
    caption: str
    arrays: Mapping[str, np.ndarray]
    other_captions: tuple[str, ...] = ()

    @property
    def captions(self) -> tuple[str, ...]:
        """All captions, one or more; a single one may be empty."""
        return (self.caption, *self.other_captions)


def array_facts(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Return dtype and shape of each array, as header and manifest state them."""
    return {name: {"dtype": a.dtype.name, "shape": list(a.shape)} for name, a in arrays.items()}


def record_to_bytes(record: ClipRecord) -> bytes:
    """Serialise a clip.

    Raises:
        ValueError: for a dtype that is not stored.
    """
    facts = array_facts(record.arrays)
    for name, fact in facts.items():
        if fact["dtype"] not in STORED_DTYPES:
            raise ValueError(
                f"array {name!r} is {fact['dtype']}; stored are {', '.join(STORED_DTYPES)}"
            )
    fields: dict[str, Any] = {"name": record.name, "caption": record.caption, "arrays": facts}
    fields |= {"other_captions": record.other_captions} if record.other_captions else {}
    header = json.dumps(fields, separators=(",", ":")).encode()
    arrays = b"".join(
        np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"), copy=False).tobytes()
        for a in record.arrays.values()
    )
    return PREFIX.pack(MAGIC, len(header)) + header + arrays


def record_from_bytes(data: bytes) -> ClipRecord:
    """Read a clip back; its arrays are read-only views of `data`.

    Raises:
        RecordError: when the bytes are damaged, cut off or something else.
    """
    if len(data) < PREFIX.size or data[:4] != MAGIC:
        raise RecordError("not a clip record")
    _, header_size = PREFIX.unpack_from(data)
    start = PREFIX.size + header_size
    try:
        header = parse_json(data[PREFIX.size : start])
        name, caption = str(header["name"]), str(header["caption"])
        others = tuple(map(str, header.get("other_captions", ())))
        facts = [(n, str(f["dtype"]), tuple(f["shape"])) for n, f in header["arrays"].items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"the header cannot be read: {type(error).__name__}") from error
    arrays = {}
    for array, dtype_name, shape in facts:
        if dtype_name not in STORED_DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise RecordError(f"array {array!r} is {dtype_name} {shape}")
        dtype, count = np.dtype(dtype_name).newbyteorder("<"), math.prod(shape)
        if start + count * dtype.itemsize > len(data):
            raise RecordError("the record ends before its arrays do")
        arrays[array] = np.frombuffer(data, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize
    if start != len(data):
        raise RecordError("the record goes on behind its arrays")
    return ClipRecord(name, caption, arrays, others)
