"""TensorBoard's messages as the bytes of protocol buffers, made here from their field numbers.

tensorboardX has classes for them, but importing any part of it imports torch wherever that is
installed: seconds and hundreds of megabytes for a few numbers. Written are only these fields:

    Event            1 wall_time (double)  2 step  3 file_version  5 summary  7 session_log
    Summary          1 value, repeated
    Summary.Value    1 tag  2 simple_value (float)  4 image  8 tensor  9 metadata
    Summary.Image    1 height  2 width  3 colorspace  4 encoded_image_string
    SessionLog       1 status
    TensorProto      1 dtype  8 string_val
    SummaryMetadata  1 plugin_data, of which 1 plugin_name

Source: tensorflow/core/util/event.proto, framework/summary.proto and framework/tensor.proto;
the checksum of a TFRecord is RFC 3720's CRC-32C, masked as tensorflow/core/lib/hash/crc32c.h does.
"""

import functools
import struct
from collections.abc import Iterable

import numpy as np

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_POLYNOMIAL = 0x82F63B78  # of CRC-32C, reversed
_START = 1  # SessionLog.SessionStatus
_DT_STRING = 7  # DataType


def event(
    wall_time: float,
    *,
    step: int = 0,
    file_version: str = "",
    values: Iterable[bytes] = (),
    is_start: bool = False,
) -> bytes:
    """Return an Event.

    Args:
        wall_time: seconds since 1970.
        step: number of completed steps.
        file_version: given in the first event of a file alone.
        values: of the summary, each from one of the functions below.
        is_start: whether it says that a session starts, which hides later steps of files before.

    Returns:
        The message's bytes.
    """
    parts = [_field(1, _FIXED64, struct.pack("<d", wall_time))]
    if step:
        parts.append(_number(2, step))
    if file_version:
        parts.append(_text(3, file_version))
    if summary := b"".join(_bytes(1, value) for value in values):
        parts.append(_bytes(5, summary))
    if is_start:
        parts.append(_bytes(7, _number(1, _START)))
    return b"".join(parts)


def scalar_value(tag: str, value: float) -> bytes:
    """Return a Summary.Value of one number, stored as float32.

    Args:
        tag: name of the curve.
        value: any number; beyond float32 it is infinite.
    """
    with np.errstate(over="ignore"):
        stored = np.asarray(value, np.float64).astype("<f4").tobytes()
    return _text(1, tag) + _field(2, _FIXED32, stored)


def image_value(tag: str, encoded: bytes, *, height: int, width: int) -> bytes:
    """Return a Summary.Value of a picture.

    Args:
        tag: its name.
        encoded: PNG, JPEG or GIF.
        height: in pixels.
        width: in pixels.
    """
    colours = 3  # RGB
    sizes = _number(1, height) + _number(2, width) + _number(3, colours)
    return _text(1, tag) + _bytes(4, sizes + _bytes(4, encoded))


def text_value(tag: str, markdown: str) -> bytes:
    """Return a Summary.Value for TensorBoard's page of texts.

    Args:
        tag: its name.
        markdown: what the page shows.
    """
    tensor = _number(1, _DT_STRING) + _text(8, markdown)
    metadata = _bytes(1, _text(1, "text"))
    return _text(1, tag) + _bytes(8, tensor) + _bytes(9, metadata)


def tf_record(data: bytes) -> bytes:
    """Return a TFRecord: length, its checksum, the data, its checksum; all little-endian."""
    length = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return b"".join([length, sums[0], data, sums[1]])


def masked_crc32c(data: bytes) -> int:
    """Return the checksum that a TFRecord holds of `data`, 32 bits."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def _field(number: int, wire_type: int, content: bytes) -> bytes:
    return _varint(number << 3 | wire_type) + content


def _number(number: int, value: int) -> bytes:
    return _field(number, _VARINT, _varint(value & (1 << 64) - 1))  # negative: two's complement


def _bytes(number: int, content: bytes) -> bytes:
    return _field(number, _BYTES, _varint(len(content)) + content)


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
