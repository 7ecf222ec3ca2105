#!/usr/bin/env bash
# Set up the environment, then check style and run every test.
set -euo pipefail

case "${1:-}" in
  -h | --help)
    cat <<'EOF'
Usage: bash tools/run_tests.sh [pytest arguments]

Runs tools/setup_env.sh and tools/lint.sh, then the tests, in two processes: about
18 minutes on 2 cores after the set-up, 3 less once the CUDA kernels for the tests
are built. Arguments are passed to pytest, e.g.:
bash tools/run_tests.sh tests/test_ops -x -n 0
EOF
    exit 0
    ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
bin=${MMSSM_VENV:-$PWD/.venv}/bin

PATH=$bin:$PATH bash tools/lint.sh
# Files are shared out to two processes, in order. Threads of one that wait do
# not keep the other from computing.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
exec "$bin/python" -m pytest -q --durations=10 \
  -n 2 --dist loadfile --no-loadscope-reorder "$@"
