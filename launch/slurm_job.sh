#!/usr/bin/env bash
# The batch script of launch/slurm.py:  sbatch OPTIONS slurm_job.sh MAX_RESTARTS COMMAND...
# Runs COMMAND on all tasks. When it ends with code 3 (stopped by SIGTERM) or 143 (the same, before
# its Python had started), the job goes back into the queue and the same COMMAND resumes there; a job
# that was cancelled does not.
set -uo pipefail

readonly exit_preempted=3
readonly exit_sigterm=143
max_restarts=$1
shift

# srun takes this from sbatch no more since Slurm 22.05: each task would get one core.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

code=0
# One dead task is found by the others, which end themselves; killing them here would hide the 3.
srun --kill-on-bad-exit=0 "$@" || code=$?

if ((code == exit_preempted || code == exit_sigterm)); then
  state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
  restarts=${SLURM_RESTART_COUNT:-0}
  if [[ $state != RUNNING ]]; then
    echo "the job is ${state:-gone}: not requeued" >&2
  elif ((restarts >= max_restarts)); then
    echo "requeued $restarts times already: not again" >&2
  else
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$code"
