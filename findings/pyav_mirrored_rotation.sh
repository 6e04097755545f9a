#!/usr/bin/env bash
# PyAV 18.1.0, MP4s whose track header holds a mirroring matrix (ISO/IEC 14496-12, tkhd).
#
# Good guess: `frame.rotation` is the angle by which a player turns the frame, whatever else the matrix does.
# What happens: it is the angle of the matrix's first row alone, whatever its determinant. A matrix that exchanges
#   left and right (-1 0 0 1), which turns nothing, reads as -180, so that who rotates by it gets the picture
#   upside down; one that exchanges top and bottom (1 0 0 -1), half a turn and a mirroring, reads as 0, and the
#   picture stays upside down. Mirrored portrait (0 1 1 0) reads as a quarter turn, as it should.
# Seen: rotations of identity, half a turn, left-right, top-bottom, transposed: 0, 180 either way, -180 (180), 0, a
#   quarter. Only the side data DISPLAYMATRIX tells the first two pairs apart.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/read.py" <<'PY'
import struct

import av
import numpy as np

with av.open("plain.mp4", "w") as out:
    stream = out.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for i in range(4):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * i, np.uint8), format="rgb24")
        out.mux(stream.encode(frame))
    out.mux(stream.encode())

MATRICES = {
    "identity": (1, 0, 0, 1),
    "half a turn": (-1, 0, 0, -1),
    "left and right": (-1, 0, 0, 1),
    "top and bottom": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
}
plain = open("plain.mp4", "rb").read()
place = plain.index(b"tkhd") + 44  # version 0: the matrix lies 40 bytes behind flags
rotations, determinants = {}, {}
for name, (a, b, c, d) in MATRICES.items():
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    with open("turned.mp4", "wb") as file:
        file.write(plain[:place] + matrix + plain[place + 36 :])
    with av.open("turned.mp4") as container:
        frame = next(container.decode(video=0))
        rotations[name] = frame.rotation % 360
        side = frame.side_data.get("DISPLAYMATRIX")
        found = struct.unpack("=9i", bytes(side)) if side is not None else (1, 0, 0, 0, 1)
        determinants[name] = int(np.sign(found[0] * found[4] - found[1] * found[3]))
print(f"PyAV {av.__version__}: rotations {rotations}, determinants {determinants}")
assert rotations["identity"] == rotations["top and bottom"] == 0, "it has changed"
assert rotations["half a turn"] == rotations["left and right"] == 180, "it has changed"
assert rotations["transposed"] in (90, 270), "it has changed"
assert list(determinants.values()) == [1, 1, -1, -1, -1], "it has changed"
PY
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile av==18.1.0 numpy==2.4.6 2> /dev/null
cd "$dir" && "$dir/venv/bin/python" read.py
echo "as described"
