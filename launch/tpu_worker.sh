#!/usr/bin/env bash
# One worker of a Cloud TPU slice. launch/tpu_vm.py unpacks this code on all workers as
# ~/tpdiff_jobs/NAME/code and calls this script there; beside it lie venv, log.txt, pid, exit_code.
#
#   tpu_worker.sh check WORKDIR           fail when WORKDIR would lie on this worker's own disk
#   tpu_worker.sh install                 Python and the requirements, with jax[tpu]
#   tpu_worker.sh start COMMAND...        run COMMAND in the background, in code/
#   tpu_worker.sh status                  tpu_worker HOST running | exited CODE | lost | absent
#   tpu_worker.sh log COUNT               the whole lines that were logged after the first COUNT
#   tpu_worker.sh stop                    SIGTERM, so that a checkpoint is saved; later SIGKILL
set -euo pipefail

script=$(realpath "${BASH_SOURCE[0]}")
cd "$(dirname "$script")/../.."

# TPU VM images bring a Python that is too old, and no other one that all of them share.
python_version=3.12
stop_seconds=${TPDIFF_STOP_SECONDS:-120}

check() {
  local folder=$1
  while [[ ! -e $folder ]]; do folder=$(dirname -- "$folder"); done
  if [[ $(stat -c %d -- "$folder") == "$(stat -c %d -- "$HOME")" ]]; then
    echo "$1 would lie on this worker's own disk, which goes when the slice does;" \
      "mount a shared file system first" >&2
    return 2
  fi
}

install() {
  python3 -m pip install --quiet --user --upgrade uv
  local uv=$HOME/.local/bin/uv
  [[ -x venv/bin/python ]] || "$uv" venv --quiet --python "$python_version" venv
  "$uv" pip install --quiet --python venv/bin/python -r code/requirements.txt 'jax[tpu]'
}

is_running() {
  local pid
  pid=$(cat pid 2>/dev/null) || return 1
  is_worker "$pid"
}

# After a reboot the number may belong to another process.
is_worker() {
  grep -q tpu_worker.sh "/proc/$1/cmdline" 2>/dev/null
}

start() {
  if is_running; then
    echo "already running" >&2
    return
  fi
  rm -f pid exit_code
  [[ ! -e log.txt ]] || mv log.txt log_before.txt
  nohup setsid bash "$script" supervise "$@" >>log.txt 2>&1 </dev/null &
  local _
  for _ in {1..300}; do
    if [[ -s pid ]]; then return; fi
    sleep 0.1
  done
  echo "the command did not start" >&2
  return 1
}

supervise() {
  echo "$$" >pid
  # SIGTERM goes to the whole group; this shell outlives it to write down how COMMAND ended.
  trap : TERM
  local code=0
  (cd code && exec "$@") || code=$?
  echo "$code" >exit_code.new
  mv exit_code.new exit_code
}

status() {
  local state=absent
  if is_running; then # asked first: whoever has ended has written exit_code before
    state=running
  elif [[ -e exit_code ]]; then
    state="exited $(cat exit_code)"
  elif [[ -e pid ]]; then
    state=lost
  fi
  echo "tpu_worker $HOSTNAME $state"
}

log() {
  [[ ! -e log.txt ]] || head -n "$(wc -l <log.txt)" log.txt | tail -n "+$(($1 + 1))"
}

stop() {
  local pid waited=0
  # Another `stop`, or a new start, may come in between: what is gone already needs no signal.
  pid=$(cat pid 2>/dev/null) || return 0
  is_worker "$pid" || return 0
  kill -TERM -- "-$pid" 2>/dev/null || true
  while is_worker "$pid" && ((waited < stop_seconds)); do
    sleep 1
    waited=$((waited + 1))
  done
  if is_worker "$pid"; then kill -KILL -- "-$pid" 2>/dev/null || true; fi
}

case ${1:-} in
  check | install | start | supervise | status | log | stop) "$@" ;;
  *)
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$script" >&2
    exit 2
    ;;
esac
