#!/usr/bin/env bash
# Train with several processes: one per GPU, or gloo processes on CPUs.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]

Trains CONFIG with GPUS processes on this machine: one per GPU, or on CPU
cores if there is no GPU. Example:
  bash tools/dist_train.sh configs/vmamba/mask-rcnn_vmamba-tiny-s1l8_fpn_1x_coco.py 8 --amp
EOF
  dist_usage
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/launch_common.sh
source "$here/launch_common.sh"

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 2 ]; then
  usage >&2
  exit 2
fi
config=$1 gpus=$2
shift 2
dist_launch "$gpus" "$here/train.py" "$config" --launcher pytorch "$@"
