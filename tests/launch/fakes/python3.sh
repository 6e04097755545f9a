#!/usr/bin/env bash
# A stand-in for the workers' own python3, which is only ever asked for `-m pip install uv`.
set -euo pipefail
[[ "$1 $2 $3" == "-m pip install" && ${!#} == uv ]]
mkdir -p "$HOME/.local/bin"
cp "$FAKE_UV" "$HOME/.local/bin/uv"
chmod +x "$HOME/.local/bin/uv"
