#!/usr/bin/env bash
# PyAV 18.1.0 (libavformat 62.12), Pillow 13.0.0.
#
# Good guess: the GIF reader's options do what their texts say: a delay below `min_delay` (2 hundredths of a
#   second unless told otherwise) is replaced by `default_delay` (10 of them), as browsers do, and
#   `max_gif_delay` bounds a delay from above.
# What happens: the three are taken and change nothing; delays are those of the file.
# Seen: delays of 1, 2, 5 and 10 hundredths are read as 1, 2, 5 and 10 without options, with min_delay 7 and
#   default_delay 50, and with max_gif_delay 3. Control: `ignore_loop` of the same reader, handed over in the
#   same way, works: the animation starts again after its last frame.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile av==18.1.0 pillow==13.0.0
"$dir/venv/bin/python" - <<'PY'
import io
from itertools import islice

import av
from PIL import Image

DELAYS = [1, 2, 5, 10]
images = [Image.new("L", (8, 8), 50 * number) for number in range(len(DELAYS))]
file = io.BytesIO()
images[0].save(
    file, "GIF", save_all=True, append_images=images[1:], duration=[10 * delay for delay in DELAYS], loop=0
)


def read(**options):
    file.seek(0)
    with av.open(file, format="gif", options=options) as container:
        stream = container.streams.video[0]
        assert stream.time_base.denominator == 100
        found = [p.duration for p in islice((p for p in container.demux(stream) if p.size), 10)]
    print(f"{options}: {found}")
    return found


assert read() == DELAYS
assert read(min_delay="7", default_delay="50") == DELAYS
assert read(max_gif_delay="3") == DELAYS
assert len(read(ignore_loop="0")) == 10
PY
