#!/usr/bin/env bash
# PyAV 18.1.0 (libavcodec 62.28), Pillow 13.0.0, numpy 2.4.6.
#
# Good guess: an animated PNG decodes to the same pixels everywhere, PNG being lossless; two readers, one
#   picture.
# What happens: where pixels have fewer than 8 bits (palettes of 2, 4 or 16 colours, as optimised animations
#   have) and a later frame covers only part of the canvas, not from its left edge, PyAV decodes it to wrong
#   pixels, without an error or a warning.
# Seen, on 16 x 16 pixels of 1, 2 and 4 bits with a second frame of 8 x 8 at x = 4, y = 2: Pillow has every
#   pixel right, PyAV 32, 46 and 60 of the second frame's wrong. Controls: all right with 8 bits, with a
#   second frame at the left edge (x = 0), and in every first frame.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
    av==18.1.0 pillow==13.0.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import io
import struct
import zlib

import av
import numpy as np
from PIL import Image

random = np.random.default_rng(0)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(pixels, bits):
    digits = (pixels[..., None] >> np.arange(bits)[::-1]) & 1  # of each pixel, the highest first
    rows = np.packbits(digits.reshape(len(pixels), -1).astype(np.uint8), axis=1)
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))  # filter 0 before each row


def animation(bits, left, top):
    """A file of two frames, 16 x 16 and an 8 x 8 part of it, and what they show."""
    colours = random.integers(0, 256, (min(2**bits, 16), 3), dtype=np.uint8)
    first = random.integers(0, len(colours), (16, 16))
    part = random.integers(0, len(colours), (8, 8))
    second = first.copy()
    second[top:top + 8, left:left + 8] = part
    data = b"".join((
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, bits, 3, 0, 0, 0)),
        chunk(b"acTL", struct.pack(">II", 2, 1)),
        chunk(b"PLTE", colours.tobytes()),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 10, 0, 0)),
        chunk(b"IDAT", packed(first, bits)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 8, 8, left, top, 1, 10, 0, 0)),
        chunk(b"fdAT", struct.pack(">I", 2) + packed(part, bits)),
        chunk(b"IEND", b""),
    ))
    return data, (colours[first], colours[second])


def wrong(decoded, right):
    assert len(decoded) == len(right) == 2
    return [int((a != b).any(-1).sum()) for a, b in zip(decoded, right)]


for bits in (1, 2, 4, 8):
    for left, top in ((0, 2), (4, 2)):
        data, right = animation(bits, left, top)
        with Image.open(io.BytesIO(data)) as image:
            pillow = []
            for number in range(image.n_frames):
                image.seek(number)
                pillow.append(np.asarray(image.convert("RGB")))
        with av.open(io.BytesIO(data)) as container:
            pyav = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        print(
            f"{bits} bits, part at ({left}, {top}): wrong pixels in frames 1 and 2:"
            f" Pillow {wrong(pillow, right)}, PyAV {wrong(pyav, right)}"
        )
        assert wrong(pillow, right) == [0, 0]
        assert wrong(pyav, right)[0] == 0
        assert (wrong(pyav, right)[1] > 0) == (bits < 8 and left > 0)
PY
