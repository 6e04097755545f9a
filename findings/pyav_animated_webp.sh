#!/usr/bin/env bash
# PyAV 18.1.0 (the last for Python 3.11) beside 19.0.2 (Python 3.12 and later), Pillow 13.0.0.
#
# Good guess: an animated WebP is read like a GIF or an APNG, or refused when it is opened.
# What happens in 18.1.0: it opens, as `webp_pipe`, with one packet that holds the whole file and no duration;
#   decoding it raises InvalidDataError. A still WebP is read by the same pair. So a check that only opens the
#   file, or counts its packets, takes a clip for a picture. In 19.0.2 the demuxer is `webp_anim`: a packet a
#   frame, with its time, and all are decoded.
# Seen: five frames of 50 ms: 1 packet and no frame in 18.1.0; 5 packets and 5 frames at 0, 50, 100, 150, 200 ms
#   in 19.0.2. Which clips a folder gives thus depends on the Python that prepares it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/read.py" <<'PY'
import sys

import av
import numpy as np
from PIL import Image

frames = [Image.fromarray(np.full((48, 64, 3), 50 * i, np.uint8)) for i in range(1, 6)]
frames[0].save("still.webp")
frames[0].save("moving.webp", save_all=True, append_images=frames[1:], duration=50)


def look(path):
    with av.open(path) as container:
        name = container.format.name
        packets = [packet for packet in container.demux(video=0) if packet.size]
    try:
        with av.open(path) as container:
            times = [round(1000 * frame.time) for frame in container.decode(video=0)]
    except av.FFmpegError as error:
        times = type(error).__name__
    return name, len(packets), times


found = {path: look(path) for path in ("still.webp", "moving.webp")}
print(f"PyAV {av.__version__}: {found}")
assert found["still.webp"][1:] == (1, [0]), "it has changed"
expected = {
    "18.1.0": ("webp_pipe", 1, "InvalidDataError"),
    "19.0.2": ("webp_anim", 5, [0, 50, 100, 150, 200]),
}[av.__version__]
assert found["moving.webp"] == expected, "it has changed"
PY
check() {
  "$1" -m venv "$dir/venv-$2"
  "$dir/venv-$2/bin/pip" install --quiet --disable-pip-version-check --no-compile "av==$2" pillow==13.0.0 numpy 2> /dev/null
  (cd "$dir" && "$dir/venv-$2/bin/python" read.py)
}
check python3 18.1.0
if python3.12 --version > /dev/null 2>&1; then
  check python3.12 19.0.2
fi
echo "as described"
