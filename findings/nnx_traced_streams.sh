#!/usr/bin/env bash
# flax 0.12.8 with jax 0.10.2 (what Python 3.11 can have).
#
# Good guess: a key of nnx.Rngs costs as much as jax.random.fold_in, traced or not, so tracing the construction of
#   a network (nnx.eval_shape, a jitted init, vmap over layers) takes time in proportion to its parameters.
# What happens: a stream keeps its count in a Variable and assigns it at every key. The assignment asks the value
#   for its sharding; a tracer of this jax has none and answers with an error whose text names every operation
#   that the value came from. The error is caught, so nothing shows; the time goes with the square of the keys.
# Seen: 800 keys under jax.eval_shape take 3.7 s and 100 keys 0.13, against 0.05 and 0.01 for fold_in with a
#   number that Python counts (the same keys). With jax 0.12.0.1 and flax 0.12.12: 0.16 s. A network of a
#   thousand parameters is slow to trace for this alone: count in Python, or build on concrete keys.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/trace.py" <<'PY'
import sys
import time

import jax
import numpy as np
from flax import nnx


def streamed(n):
    def build(seed):
        rngs = nnx.Rngs(jax.random.key(seed))
        return [rngs() for _ in range(n)]

    return build


def counted(n):
    def build(seed):
        key = jax.random.key(seed)
        return [jax.random.fold_in(key, np.uint32(i)) for i in range(n)]

    return build


def seconds(build):
    start = time.process_time()
    jax.eval_shape(build, 0)
    return time.process_time() - start


for way in (streamed, counted):
    for old, new in zip(streamed(3)(7), counted(3)(7), strict=True):
        assert (jax.random.key_data(old) == jax.random.key_data(new)).all()
    seconds(way(3))
few, many = seconds(streamed(100)), seconds(streamed(800))
python = seconds(counted(800))
print(f"jax {jax.__version__}: 100 keys {few:.2f} s, 800 keys {many:.2f} s, counted by Python {python:.2f} s")
is_slow = many > 12 * few and many > 20 * python
assert is_slow == (sys.argv[1] == "slow"), "it has changed"
PY
export JAX_PLATFORMS=cpu
check() {
  "$1" -m venv "$dir/venv-$2"
  "$dir/venv-$2/bin/pip" install --quiet --disable-pip-version-check --no-compile "jax==$2" "jaxlib==$2" "flax==$3" 2> /dev/null
  "$dir/venv-$2/bin/python" "$dir/trace.py" "$4"
}
check python3 0.10.2 0.12.8 slow
if python3.12 --version > /dev/null 2>&1; then
  check python3.12 0.12.0.1 0.12.12 quick  # the control
fi
echo "as described"
