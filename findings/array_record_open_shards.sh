#!/usr/bin/env bash
# array_record 0.8.6, the shards that grain and TensorFlow Datasets read.
#
# Good guess: a data source over many shards keeps a bounded number of them open, or opens them again at need.
# What happens: every shard that a record was read from stays open for as long as the source lives. At the limit of
#   open files (1,024 on most systems; a million videos in shards of 512 are 1,950) reading a sound record raises
#   RuntimeError, the very type that a bad checksum raises, and only the text tells them apart. Code that skips
#   damaged records skips sound ones there, and trains on others than a machine with a higher limit does.
# Seen: 60 shards of one record with a limit of 40 descriptors: the records of some 30 shards are read, one
#   descriptor more each; the next one raises RuntimeError, "... Too many open files". With a limit of 200 all 60
#   are read.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/read.py" <<'PY'
import os
import resource
import sys

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

NUM_SHARDS = 60
limit = int(sys.argv[1])
paths = [f"shard-{i:02d}.array_record" for i in range(NUM_SHARDS)]
for path in paths:
    if not os.path.exists(path):
        writer = ArrayRecordWriter(path, "group_size:1")
        writer.write(b"a record")
        writer.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
source = ArrayRecordDataSource(paths)


def num_open():
    return len(os.listdir("/proc/self/fd"))


before, number, error = num_open(), 0, None
try:
    for number in range(NUM_SHARDS):
        source[number]
        if number == 9:
            opened = num_open() - before
except Exception as caught:  # of what type is the question
    error = caught
print(f"limit {limit}: {opened} more open after 10 records; record {number}: {error!r}")
assert opened == 10, "it has changed"
if limit < NUM_SHARDS:
    assert type(error) is RuntimeError and "Too many open files" in str(error), "it has changed"
else:
    assert error is None and number == NUM_SHARDS - 1, "it has changed"
PY
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile array_record==0.8.6 absl-py etils 2> /dev/null
cd "$dir"
"$dir/venv/bin/python" read.py 40
"$dir/venv/bin/python" read.py 200
echo "as described"
