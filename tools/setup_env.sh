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
About 14 minutes and 7 GB on 2 cores the first time, most of it mmcv's build;
seconds afterwards. Variables: PYTHON (python3), MAX_JOBS (compiler jobs).
EOF
}
case "${1:-}" in
  -h | --help) usage; exit 0 ;;
  '') ;;
  *) echo "setup_env.sh: unknown argument '$1'; see --help" >&2; exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${MMSSM_VENV:-$PWD/.venv}
stamps=$venv/.mmssm/done
logs=$venv/.mmssm/logs
cores=$(nproc)
export MAX_JOBS=${MAX_JOBS:-$cores}
# Debug symbols, which Python asks for by default, double the compile time.
export CFLAGS="${CFLAGS:-} -g0"
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
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
  echo "setup_env.sh: $python is $("$python" --version 2>&1), but 3.10 to 3.12 is needed; set PYTHON=/path/to/python3.11" >&2
  exit 1
fi
[ -x "$venv/bin/python" ] || rm -rf "$venv/.mmssm"
mkdir -p "$stamps" "$logs"

mmcv_build() {
  # No isolation: build with the installed torch and setuptools.
  local mmcv
  mmcv=$(grep '^mmcv==' requirements/mminstall.txt)
  MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps "$mmcv"
}
test_tools() {
  pip install -r requirements/tests.txt -r requirements/docs.txt
  pip install --no-build-isolation --no-deps -r requirements/gradcam.txt
}
mmssm_build() { pip install --no-build-isolation --no-deps -v -e .; }

sources=$(find csrc setup.py mmssm/version.py -type f 2>/dev/null | sort)
step 'virtual environment' "$python $venv" "$python" -m venv "$venv"
step 'torch and build tools (2 minutes)' "$(hash_of requirements/build.txt)" pip install -r requirements/build.txt
step 'libraries' "$(hash_of requirements/runtime.txt requirements/mmdeps.txt)" pip install -r requirements/runtime.txt -r requirements/mmdeps.txt
step "mmcv from source (10 minutes on 2 cores, then cached)" "$(hash_of requirements/build.txt requirements/mminstall.txt)" mmcv_build
step 'mmengine, mmdet, mmsegmentation, mmpretrain' "$(hash_of requirements/mminstall.txt)" pip install --no-deps -r requirements/mminstall.txt
step 'test tools' "$(hash_of requirements/tests.txt requirements/docs.txt requirements/gradcam.txt)" test_tools
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
