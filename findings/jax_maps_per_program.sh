#!/usr/bin/env bash
# jax 0.10.2 and 0.12.0.1 on a CPU, Linux.
#
# Good guess: what a process has compiled costs it memory alone, so a test suite or a service that compiles
#   many shapes may go on while gigabytes are free.
# What happens: every program on a CPU holds memory maps of its own for as long as JAX's caches keep it: three for
#   the smallest, and more with its size, some six for each layer of a small unrolled network with its gradient.
#   Linux allows a process 65,530 maps (vm.max_map_count), and nothing says so when they run out. A suite of
#   seven thousand tests that kept its programs died there, in the C library's unwinder, with gigabytes free.
# Seen: 100 small programs hold about 315 maps, one gradient of 64 layers about 410; jax.clear_caches() and a
#   garbage collection give all back but a few. Count /proc/self/maps, and clear before the limit.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/count.py" <<'PY'
import gc

import jax
import jax.numpy as jnp
import numpy as np


def maps():
    with open("/proc/self/maps") as lines:
        return sum(1 for _ in lines)


def loss(weights, x):
    for w in weights:
        x = jnp.tanh(x @ w) + jax.nn.softmax(x)
    return jnp.mean(x**2)


jax.jit(lambda x: x + 1)(1.0)  # what starting takes
before = maps()
small = [jax.jit(lambda x, n=n: jnp.sin(x * n) @ x.T) for n in range(100)]
for n, program in enumerate(small):
    program(np.ones((3, n + 1), np.float32))
of_small = maps() - before
large = jax.jit(jax.grad(loss))
large([np.eye(8, dtype=np.float32)] * 64, np.ones((4, 8), np.float32))
of_large = maps() - before - of_small
del small, program, large
jax.clear_caches()
gc.collect()
left = maps() - before
print(f"jax {jax.__version__}: 100 small programs {of_small}, one large {of_large}, left {left}")
assert of_small >= 250 and of_large >= 200 and left < 60
PY
export JAX_PLATFORMS=cpu
for python_and_jax in "python3 0.10.2" "python3.12 0.12.0.1"; do
  read -r python jax <<< "$python_and_jax"
  "$python" --version > /dev/null 2>&1 || { echo "no $python here: jax $jax is left out"; continue; }
  "$python" -m venv "$dir/venv-$jax"
  "$dir/venv-$jax/bin/pip" install --quiet --disable-pip-version-check --no-compile "jax==$jax" "jaxlib==$jax" 2> /dev/null
  "$dir/venv-$jax/bin/python" "$dir/count.py"
done
echo "as described"
