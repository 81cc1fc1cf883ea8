#!/usr/bin/env bash
# sanitize.sh [address|thread]… [-- ARGUMENTS OF THE TESTS]: the whole test suite under AddressSanitizer (with leaks) and
# ThreadSanitizer, each with a build of its own (.build/asan, .build/tsan). Both by default. Nothing is left out: what
# ThreadSanitizer needs to be told about Swift's Mutex and librdkafka's threads is in sanitize/tsan_shim.c.
set -euo pipefail
cd "$(dirname "$0")/.."

# A history costs ten times as much here; 2,000 of them are for `make test`.
export RULESD_FAULT_SEEDS=${RULESD_FAULT_SEEDS:-100}

which=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
  which+=("$1")
  shift
done
[ $# -eq 0 ] || shift
[ ${#which[@]} -gt 0 ] || which=(address thread)

# run NAME PATH ENVIRONMENT… -- ARGUMENTS…: the tests of one build; says how it went, and answers for it.
run() {
  local name=$1 path=$2 log=$2/sanitize.log status=0
  shift 2
  local environment=()
  while [ "$1" != "--" ]; do
    environment+=("$1")
    shift
  done
  shift
  rm -f "$path"/report.*
  env "${environment[@]}" "$path"/debug/rulesdPackageTests.xctest --testing-library swift-testing "$@" >"$log" 2>&1 ||
    status=$?
  # One line for each report; the tests' own failures stand in the log.
  cat "$path"/report.* >>"$log" 2>/dev/null || true
  grep -hE 'WARNING: ThreadSanitizer|ERROR: (Address|Leak)Sanitizer|^SUMMARY' "$log" | sort | uniq -c || true
  grep -E '^✘ Test [^r].* recorded an issue' "$log" || true
  grep -E '^. Test run with' "$log" || true
  echo "sanitize: $name: exit code $status, log in $log"
  return "$status"
}

address() {
  swift build --build-tests --sanitize=address --build-path .build/asan
  run address .build/asan "ASAN_OPTIONS=detect_stack_use_after_return=0:quarantine_size_mb=64:log_path=.build/asan/report" \
    "LSAN_OPTIONS=suppressions=$PWD/scripts/sanitize/lsan.txt:print_suppressions=0" -- "$@"
}

thread() {
  swift build --build-tests --sanitize=thread --build-path .build/tsan
  local shim=$PWD/.build/tsan/shim.so
  clang -O1 -g -fPIC -shared -Wall -Werror -o "$shim" scripts/sanitize/tsan_shim.c
  # First: does it speak up when it should, and hold its tongue when it should?
  swiftc -sanitize=thread -swift-version 5 -o .build/tsan/racy scripts/sanitize/racy.swift
  if TSAN_OPTIONS=log_path=/dev/null LD_PRELOAD=$shim .build/tsan/racy race >/dev/null 2>&1; then
    echo "sanitize: ThreadSanitizer does not see a race that is there" >&2
    return 1
  fi
  TSAN_OPTIONS=log_path=stderr LD_PRELOAD=$shim .build/tsan/racy >/dev/null || {
    echo "sanitize: ThreadSanitizer sees a race in a Mutex; scripts/sanitize/tsan_shim.c does not fit this Swift" >&2
    return 1
  }
  run thread .build/tsan "TSAN_OPTIONS=halt_on_error=0:exitcode=66:log_path=.build/tsan/report" "LD_PRELOAD=$shim" -- "$@"
}

failed=0
for name in "${which[@]}"; do
  case $name in
    address | thread) "$name" "$@" || failed=1 ;;
    *)
      echo "usage: sanitize.sh [address|thread]… [-- ARGUMENTS OF THE TESTS]" >&2
      exit 2
      ;;
  esac
done
exit "$failed"
