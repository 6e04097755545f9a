#!/usr/bin/env bash
# A stand-in for srun: one task, here.
set -euo pipefail
[[ $1 == --kill-on-bad-exit=0 ]]
shift
exec "$@"
