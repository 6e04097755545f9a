#!/usr/bin/env bash
# PyAV 18.1.0 (libswscale 9.5), numpy 2.4.6.
#
# Good guess: full-range YUV of 10 or 12 bits to 8-bit RGB is rounded to the nearest level, as 8 bits are.
# What happens: it is rounded up. Every grey between black and white comes out half a level too bright on
#   average. Black and white themselves are right, so that a test of the ends shows nothing.
# Seen, on grey ramps (4:4:4, so no chroma is interpolated, and a grey's R, G and B are its luma whatever
#   the matrix): mean error +0.50 and up to +1.12 levels (10 bits), +1.03 (12 bits). Controls: 0 from 8 bits,
#   and the same deep frames to 16-bit RGB are within 0.25 of an 8-bit level, with no error upwards.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile av==18.1.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace


def errors(bits, target):
    """Errors of a full-range grey ramp's RGB, in 8-bit levels."""
    kind = np.uint8 if bits == 8 else np.uint16
    top = 2**bits - 1
    luma = np.round(np.linspace(0, top, 256)).astype(kind)
    frame = av.VideoFrame(256, 16, "yuv444p" if bits == 8 else f"yuv444p{bits}le")
    for plane, row in zip(frame.planes, (luma, np.full_like(luma, 2 ** (bits - 1)), np.full_like(luma, 2 ** (bits - 1)))):
        lines = np.zeros((16, plane.line_size // row.itemsize), kind)
        lines[:, :256] = row
        plane.update(lines)
    frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.JPEG
    rgb = frame.reformat(format=target).to_ndarray().astype(float)
    if target == "rgb48le":
        rgb /= 257
    return rgb - (luma / top * 255)[None, :, None]


for bits in (8, 10, 12):
    shown, fine = errors(bits, "rgb24"), errors(bits, "rgb48le")
    print(
        f"{bits:2} bits: to 8-bit RGB mean {shown.mean():+.3f}, from {shown.min():+.2f} to {shown.max():+.2f};"
        f" to 16-bit RGB from {fine.min():+.2f} to {fine.max():+.2f}"
    )
    assert not shown[:, [0, -1]].any(), "black and white are right"
    if bits == 8:
        assert not shown.any()
    else:
        # a right rounding has a mean near 0 and nothing beyond 0.5
        assert 0.4 < shown.mean() < 0.6 and shown.max() > 1 and shown.min() > -0.2
        assert -0.3 < fine.min() and fine.max() < 0.01
PY
