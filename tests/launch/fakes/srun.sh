#!/usr/bin/env bash
# A stand-in for srun of Slurm 22.05 and later: one task, here. Cores of a task are not inherited
# from sbatch: they are those of SRUN_CPUS_PER_TASK, and one without.
set -euo pipefail
[[ $1 == --kill-on-bad-exit=0 ]]
shift
echo "${SRUN_CPUS_PER_TASK:-1}" >>"$FAKE_CLOUD/cores.txt"
exec "$@"
