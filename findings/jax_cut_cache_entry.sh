#!/usr/bin/env bash
# jax 0.10.2 and 0.12.0.1 on a CPU.
#
# Good guess: the persistent compilation cache mends itself: an entry that cannot be read, such as what a
#   process killed while writing has left, is replaced by the program that is then compiled.
# What happens: entries are written in place, and one that is there is never written again, whatever it holds.
#   A damaged one is read, warned about and compiled anew at every start for ever; the compilation is counted
#   as a miss, and the folder stays as it is. For a train step that is minutes a start.
# Seen: three starts after the entry was cut to its half: a warning and a miss each, and the file is still the
#   half. Control: with the file removed, one miss, then a hit. Remove unreadable entries before a start.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat > "$dir/start.py" <<'PY'
import sys
import warnings

import jax
from jax._src import monitoring

jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
seen = []
monitoring.register_event_listener(lambda name, **_: seen.append(name.rsplit("/", 1)[-1]))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    assert float(jax.jit(lambda x: x * 2 + 1)(3.0)) == 7.0
found = "hit" if "cache_hits" in seen and "cache_misses" not in seen else "miss"
print(found, "warned" if any("Error reading persistent" in str(w.message) for w in told) else "silent")
PY
export JAX_PLATFORMS=cpu
for python_and_jax in "python3 0.10.2" "python3.12 0.12.0.1"; do
  read -r python jax <<< "$python_and_jax"
  "$python" --version > /dev/null 2>&1 || { echo "no $python here: jax $jax is left out"; continue; }
  "$python" -m venv "$dir/venv-$jax"
  "$dir/venv-$jax/bin/pip" install --quiet --disable-pip-version-check --no-compile "jax==$jax" "jaxlib==$jax"
  start() { "$dir/venv-$jax/bin/python" "$dir/start.py" "$dir/programs-$jax" 2> /dev/null; }
  [[ $(start) == "miss silent" && $(start) == "hit silent" ]]
  entry=$(echo "$dir/programs-$jax"/jit__lambda*-cache)
  half=$(($(stat -c %s "$entry") / 2))
  truncate -s "$half" "$entry"
  for n in 1 2 3; do
    got=$(start)
    echo "jax $jax, start $n after the cut: $got, $(stat -c %s "$entry") of $((2 * half)) bytes"
    [[ $got == "miss warned" && $(stat -c %s "$entry") == "$half" ]]
  done
  rm "$entry"
  [[ $(start) == "miss silent" && $(start) == "hit silent" ]]
done
