#!/usr/bin/env bash
# PyAV 18.1.0 (libswscale 9.5), numpy 2.4.6.
#
# Good guess: the colour range of a frame counts: grey of limited range (16 black, 235 white), as a decoder
#   of monochrome video gives, is stretched on its way to RGB as the luma of a colour frame is.
# What happens: grey is taken for full range whatever the frame says, and whatever `reformat` is told of the
#   source's range.
# Seen: luma 16, 128, 235 of a limited-range grey frame stay 16, 128, 235 in RGB; the same luma as YUV 4:4:4
#   with neutral chroma (control) becomes 0, 130, 255, and stays as it is when marked full range (control).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile av==18.1.0 numpy==2.4.6
"$dir/venv/bin/python" - <<'PY'
import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

LUMA = (16, 128, 235)


def shown(layout, color_range, **told):
    frame = av.VideoFrame(64, 16, layout)
    for number, plane in enumerate(frame.planes):
        lines = np.full((16, plane.line_size), 128, np.uint8)
        if number == 0:
            lines[:, :48] = np.repeat(LUMA, 16)
        plane.update(lines)
    frame.colorspace, frame.color_range = Colorspace.ITU709, color_range
    rgb = frame.reformat(format="rgb24", **told).to_ndarray()[8, 8:48:16]
    assert (rgb == rgb[:, :1]).all()
    return rgb[:, 0].tolist()


limited, full = ColorRange.MPEG, ColorRange.JPEG
told = {"src_color_range": limited, "dst_color_range": full}
results = {
    "yuv444p, limited": shown("yuv444p", limited),
    "yuv444p, full": shown("yuv444p", full),
    "gray, limited": shown("gray", limited),
    "gray, limited, and reformat told so": shown("gray", limited, **told),
    "gray, full": shown("gray", full),
}
for name, rgb in results.items():
    print(f"{name}: {LUMA} -> {rgb}")
assert results["yuv444p, limited"] == [0, 130, 255]
assert results["yuv444p, full"] == list(LUMA)
assert results["gray, limited"] == results["gray, limited, and reformat told so"] == list(LUMA)
assert results["gray, full"] == list(LUMA)
PY
