#!/usr/bin/env bash
# Check style and types with the tools on PATH; change nothing.
set -euo pipefail

case "${1:-}" in
  -h | --help)
    cat <<'EOT'
Usage: bash tools/lint.sh

Checks style (ruff, clang-format) and types (mypy). The tools are those of
requirements/tests.txt.
EOT
    exit 0
    ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
ruff check .
ruff format --check .
find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' |
  xargs clang-format --dry-run --Werror
echo 'Style: ok'
mypy
