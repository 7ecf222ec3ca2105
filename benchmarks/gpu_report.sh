#!/usr/bin/env bash
# Everything worth knowing of mmssm on one GPU, within six minutes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH=$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}
exec "${PYTHON:-python3}" -u -m gpu_report "$@"
