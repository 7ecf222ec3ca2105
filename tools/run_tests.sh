#!/usr/bin/env bash
# Set up the environment, then check style and run every test.
set -euo pipefail

case "${1:-}" in
  -h | --help)
    cat <<'EOF'
Usage: bash tools/run_tests.sh [pytest arguments]

Runs tools/setup_env.sh and tools/lint.sh, then the tests: about 20 minutes on
2 cores after the set-up, and 5 more the first time, to build the CUDA kernels
for the tests. Arguments are passed to pytest, e.g.:
bash tools/run_tests.sh tests/test_ops -x
EOF
    exit 0
    ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
bin=${MMSSM_VENV:-$PWD/.venv}/bin

PATH=$bin:$PATH bash tools/lint.sh
exec "$bin/python" -m pytest -q --durations=10 "$@"
