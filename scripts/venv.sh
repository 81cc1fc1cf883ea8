#!/usr/bin/env bash
# venv.sh DIR PACKAGE…: makes a Python virtual environment with the packages, once.
# A list of what it holds stands in DIR/.packages; another list makes it anew.
set -euo pipefail

directory=$1
shift
wanted=$(printf '%s\n' "$@")
if [ -x "$directory/bin/python" ] && [ "$(cat "$directory/.packages" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi
rm -rf "$directory"
python3 -m venv "$directory"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
printf '%s\n' "$@" >"$directory/.packages"
