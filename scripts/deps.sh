#!/usr/bin/env bash
# Installs the Debian packages that the build needs and that are missing; does nothing when all are there.
set -euo pipefail

packages=(
  make pkg-config libstdc++-12-dev
  librdkafka-dev libsimdjson-dev zlib1g-dev libzstd-dev libmicrohttpd-dev libgnutls28-dev libpcre2-dev
  libpq-dev
  libjemalloc-dev  # the daemon's memory, in release builds
  postgresql       # the tests of checkpoints in a database
  kcat             # recording topics, and a peer of the benchmark
  prometheus       # with promtool: the tests of alerts and SLOs against Prometheus, and peers of the benchmark
  python3 python3-venv  # the differential tests and the benchmark
)

if ! command -v swift >/dev/null; then
  echo "deps: no swift on PATH; install Swift 6.3 or later (https://www.swift.org/install/linux/)" >&2
  exit 2
fi
if ! command -v dpkg-query >/dev/null; then
  echo "deps: not a Debian system; install what stands for these packages, then use swift build:" >&2
  printf '  %s\n' "${packages[@]}" >&2
  exit 2
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "deps: installing ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "deps: not root and no sudo; have an administrator run:" >&2
    echo "  apt-get install ${missing[*]}" >&2
    exit 2
  fi
  as_root=(sudo)
fi
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}
# The lists may be older than the archive, or absent: fetch them only when the first try fails.
log=$(mktemp)
if ! install >"$log" 2>&1; then
  "${as_root[@]}" apt-get update -q && install || {
    echo "deps: could not install ${missing[*]}" >&2
    exit 2
  }
fi
rm -f "$log"
