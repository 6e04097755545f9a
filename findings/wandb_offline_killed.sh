#!/usr/bin/env bash
# wandb 0.31.0, offline, Linux, Python 3.11.
#
# Good guess: log() hands each line to wandb-core, a process of its own, so that what it has taken outlives a
#   trainer that is killed, as spot machines and out-of-memory killers do it; a later `wandb sync` brings it up.
# What happens: wandb-core goes with its parent, without writing what it holds. Lines are kept in memory for some
#   seconds, so a young run of few lines leaves a file of seven bytes, its first mark, which can be read but holds
#   no run; and the newest step is never there however long ago it was logged, as a step is written when the next
#   one begins. Nothing tells so, then or at the next start.
# Seen: of ten steps, killed ten seconds after the last: none, in three of three tries (seven bytes);
#   killed a minute after: nine, in two of two. What is to outlive a kill needs a log of its own beside it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile wandb==0.31.0 2> /dev/null
cat > "$dir/train.py" <<'PY'
import os
import signal
import sys
import time

import wandb

settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
run = wandb.init(mode="offline", dir=sys.argv[1], project="project", settings=settings)
for step in range(10):
    run.log({"loss": 1 / (step + 1)}, step=step)
time.sleep(float(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
PY
cat > "$dir/count.py" <<'PY'
import pathlib
import struct
import sys

from wandb.proto import wandb_internal_pb2


def records(data):
    """Of a log in blocks of 32 KiB, after seven bytes: checksum, length, kind, content."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if left < 7 or kind == 0:
            place += left
            continue
        part = data[place + 7 : place + 7 + length]
        if len(part) < length:
            return
        place, whole = place + 7 + length, whole + part
        if kind in (1, 4):
            yield whole
            whole = b""


(file,) = pathlib.Path(sys.argv[1]).glob("wandb/offline-run-*/*.wandb")
kinds = [wandb_internal_pb2.Record.FromString(r).WhichOneof("record_type") for r in records(file.read_bytes())]
print(file.stat().st_size, kinds.count("history"))
PY
for seconds in 10 60; do
  mkdir "$dir/$seconds"
  { "$dir/venv/bin/python" "$dir/train.py" "$dir/$seconds" "$seconds" > /dev/null 2>&1 || true; } 2> /dev/null
  sleep 2
  read -r bytes steps <<< "$("$dir/venv/bin/python" "$dir/count.py" "$dir/$seconds")"
  echo "killed after $seconds s: $bytes bytes, $steps of 10 steps"
  if [ "$seconds" = 10 ]; then [ "$steps" -lt 10 ]; else [ "$steps" = 9 ]; fi
done
echo "as described"
