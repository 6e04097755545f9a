#!/usr/bin/env bash
# A stand-in for squeue: the state of the one job there is.
set -euo pipefail
[[ "$*" == "--noheader --jobs=$SLURM_JOB_ID --format=%T" ]]
cat "$FAKE_CLOUD/job_state"
