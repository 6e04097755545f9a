#!/usr/bin/env bash
# A stand-in for uv: a virtual environment whose python is the stand-in for the trainer.
set -euo pipefail
if [[ $1 == venv ]]; then
  mkdir -p "${!#}/bin"
  printf '#!/bin/sh\nexec "%s" -S "%s" "$@"\n' "$FAKE_PYTHON" "$FAKE_TRAINER" >"${!#}/bin/python"
  chmod +x "${!#}/bin/python"
fi
echo "$*" >>"$HOME/uv_calls.txt"
