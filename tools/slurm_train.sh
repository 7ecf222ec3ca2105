#!/usr/bin/env bash
# Train on a Slurm cluster.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]

EOF
  slurm_usage
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/launch_common.sh
source "$here/launch_common.sh"

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 4 ]; then
  usage >&2
  exit 2
fi
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
slurm_launch "$partition" "$job" "$here/train.py" "$config" \
  --work-dir "$work_dir" --launcher slurm "$@"
