#!/usr/bin/env bash
# Build a virtual environment with torch, the OpenMMLab libraries and mmssm with
# its native ops. Run it again at any time: a step whose inputs have not changed
# is skipped.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash tools/setup_env.sh [--help]

Creates .venv in the repository (another place: MMSSM_VENV=/path) and installs
torch, mmcv, mmengine, mmdet, mmsegmentation, mmpretrain and mmssm into it.
About 5 minutes and 7 GB on 2 cores the first time, half of it mmcv's build;
seconds afterwards. Variables: PYTHON (python3), MAX_JOBS (compiler jobs).
EOF
}
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  '') ;;
  *) echo "setup_env.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$(realpath -ms "${MMSSM_VENV:-.venv}")
stamps=$venv/.mmssm/done
logs=$venv/.mmssm/logs
wheels=$venv/.mmssm/wheels
cores=$(nproc)
export MAX_JOBS=${MAX_JOBS:-$cores}
# CFLAGS replaces Python's own flags, which ask for debug symbols and so double
# the compile time; what else they ask for is repeated here.
export CFLAGS="-DNDEBUG -fwrapv -O2 ${CFLAGS:-} -g0"
steps=7
number=0

# step NAME INPUTS-HASH COMMAND...: run the command unless it has succeeded with
# the same inputs. Its output goes to a log, which is shown if it fails. The
# first word of NAME names the log.
step() {
  local name=$1 hash=$2 key start
  shift 2
  number=$((number + 1))
  key=${name%%[ ,]*}
  if [ "$(cat "$stamps/$key" 2>/dev/null)" = "$hash" ]; then
    echo "[$number/$steps] $name: already done"
    return
  fi
  echo "[$number/$steps] $name ..."
  start=$SECONDS
  if ! "$@" >"$logs/$key.log" 2>&1; then
    tail -n 30 "$logs/$key.log" >&2
    echo "setup_env.sh: step '$name' failed; whole log: $logs/$key.log" >&2
    exit 1
  fi
  echo "$hash" >"$stamps/$key"
  echo "[$number/$steps] $name: done in $((SECONDS - start)) s"
}

hash_of() { cat "$@" | sha256sum | cut -d ' ' -f 1; }
# The builds look for ninja in PATH.
pip() { PATH=$venv/bin:$PATH "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
  echo "setup_env.sh: $python is $("$python" --version 2>&1), but 3.10 to 3.12 is needed; set PYTHON=/path/to/python3.11" >&2
  exit 1
fi
[ -x "$venv/bin/python" ] || rm -rf "$venv/.mmssm"
mkdir -p "$stamps" "$logs"

# Most of the time of mmcv's build goes into the headers of torch, once for
# each of its 77 files. They are compiled once here. A step's function must fail
# by its last command, or by exit: set -e does not count in it.
mmcv_build() (
  mmcv=$(grep '^mmcv==' requirements/mminstall.txt)
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  if [ -z "$(pip cache list --format abspath "${mmcv/==/-}" 2>/dev/null)" ]; then
    header=$scratch/torch.hpp
    echo '#include <torch/types.h>' >"$header"
    includes=$("$venv/bin/python" -W ignore -c '
from torch.utils.cpp_extension import include_paths
print(*("-isystem" + path for path in include_paths()))')
    # shellcheck disable=SC2086
    "${CXX:-c++}" $CFLAGS -fPIC -std=c++17 $includes \
      -x c++-header "$header" -o "$header.gch" || true
    # CFLAGS are separated by spaces.
    if [ -s "$header.gch" ] && [ "$header" = "${header// /}" ]; then
      export CFLAGS="$CFLAGS -include $header"
    fi
  fi
  # No isolation: build with the installed torch and setuptools.
  MMCV_WITH_OPS=1 pip wheel --no-build-isolation --no-deps -w "$wheels" "$mmcv"
)
mm_libraries() {
  pip install --no-deps --only-binary mmcv --find-links "$wheels" -r requirements/mminstall.txt
}
test_tools() {
  pip install -r requirements/tests.txt -r requirements/docs.txt &&
    pip install --no-build-isolation --no-deps -r requirements/gradcam.txt
}
mmssm_build() { pip install --no-build-isolation --no-deps -v -e .; }

sources=$(find csrc setup.py mmssm/version.py -type f 2>/dev/null | sort)
step 'virtual environment' "$python $venv" "$python" -m venv "$venv"
step 'torch and build tools (2 minutes)' "$(hash_of requirements/build.txt)" pip install -r requirements/build.txt
# The downloads go on while the compiler works, in a process group of its own,
# so that it ends with this script.
set -m
step 'mmcv from source (2 minutes on 2 cores, then cached)' "$(hash_of requirements/build.txt requirements/mminstall.txt)" mmcv_build &
mmcv=$!
set +m
trap 'kill -- "-$mmcv" 2>/dev/null || true' EXIT
number=$((number + 1))
step 'libraries' "$(hash_of requirements/runtime.txt requirements/mmdeps.txt)" pip install -r requirements/runtime.txt -r requirements/mmdeps.txt
step 'test tools' "$(hash_of requirements/tests.txt requirements/docs.txt requirements/gradcam.txt)" test_tools
wait "$mmcv"
trap - EXIT
step 'mmengine, mmcv, mmdet, mmsegmentation, mmpretrain' "$(hash_of requirements/build.txt requirements/mminstall.txt)" mm_libraries
# shellcheck disable=SC2086
build="$(hash_of $sources requirements/build.txt) ${MMSSM_WITH_OPS:-} ${FORCE_CUDA:-} ${TORCH_CUDA_ARCH_LIST:-}"
step 'mmssm and its native op (1 minute)' "$build" mmssm_build
if [ "${MMSSM_WITH_OPS:-1}" != 0 ] && [ "$(cat "$stamps/check" 2>/dev/null)" != "$build" ]; then
  if "$venv/bin/python" -W ignore -m mmssm.check --quick; then
    echo "$build" >"$stamps/check"
  else
    echo 'setup_env.sh: the environment can be used, except for what is wrong above' >&2
  fi
fi
echo "Ready. To use it: source ${venv#"$PWD"/}/bin/activate"
