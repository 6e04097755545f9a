#!/usr/bin/env bash
# A stand-in for `scontrol requeue JOB`.
set -euo pipefail
[[ $1 == requeue && $2 == "$SLURM_JOB_ID" && $# == 2 ]]
touch "$FAKE_CLOUD/requeued"
