#!/usr/bin/env bash
# build.sh ARGUMENTS…: swift build, and a failure when one of our files has a warning.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .build
log=.build/warnings.log
swift build "$@" 2>&1 | tee "$log"
files=$(grep -E '^[^ ]*(Sources|Tests)/[^:]*:[0-9]+:[0-9]+: warning:' "$log" | cut -d: -f1 | sort -u || true)
if [ -n "$files" ]; then
  echo "build: warnings are errors here:" >&2
  grep -E '^[^ ]*(Sources|Tests)/[^:]*:[0-9]+:[0-9]+: warning:' "$log" | sort -u >&2
  # Compile them again next time, or the next build would be silent about them.
  # shellcheck disable=SC2086
  touch $files
  exit 1
fi
