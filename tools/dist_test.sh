#!/usr/bin/env bash
# Test with several processes: one per GPU, or gloo processes on CPUs.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]

Tests CHECKPOINT with GPUS processes on this machine: one per GPU, or on CPU
cores if there is no GPU.
EOF
  dist_usage
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/launch_common.sh
source "$here/launch_common.sh"

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 3 ]; then
  usage >&2
  exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3
dist_launch "$gpus" "$here/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
