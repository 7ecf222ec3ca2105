# shellcheck shell=bash
# Functions of the dist_*.sh and slurm_*.sh scripts, which source this file.

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"

# $PYTHON, else the active environment's, else the repository's .venv.
python=${PYTHON:-python}
if [ -z "${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] &&
  [ -x "$tools/../.venv/bin/python" ]; then
  python=$tools/../.venv/bin/python
fi

# The last line of --help.
python_usage() {
  echo '  PYTHON                      interpreter (the active environment'"'"'s, else .venv'"'"'s)'
}

dist_usage() {
  cat <<'EOF'

Variables (defaults):
  NNODES (1), NODE_RANK (0)   number of machines, and index of this one
  MASTER_ADDR (127.0.0.1)     address of machine 0
  PORT (a free one)           port on machine 0; 29500 if NNODES > 1
  OMP_NUM_THREADS             threads per process (cores / GPUS)
EOF
  python_usage
}

slurm_usage() {
  cat <<'EOF'
Variables (defaults):
  GPUS (8)                    number of processes, one per GPU
  GPUS_PER_NODE (8)           processes per machine
  CPUS_PER_TASK (5)           cores per process
  SRUN_ARGS                   more options for srun
EOF
  python_usage
}

# dist_launch PROCESSES SCRIPT ARGUMENTS...
dist_launch() {
  local gpus=$1 nodes=${NNODES:-1} cores rendezvous
  shift
  if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then
    echo "$(basename "$0"): error: GPUS is '$gpus', but a number from 1 is needed; see --help" >&2
    exit 2
  fi
  rendezvous=(--nnodes "$nodes" --node_rank "${NODE_RANK:-0}"
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
  if [ "$nodes" = 1 ] && [ -z "${PORT:-}" ]; then
    rendezvous=(--standalone)
  fi
  # torchrun's default is 1, which leaves cores idle on a CPU machine.
  cores=$(nproc 2>/dev/null || echo 1)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > gpus ? cores / gpus : 1))}
  exec "$python" "$tools/torchrun.py" "${rendezvous[@]}" \
    --nproc_per_node "$gpus" "$@"
}

# slurm_launch PARTITION JOB SCRIPT ARGUMENTS...
slurm_launch() {
  local partition=$1 job=$2 srun_args
  shift 2
  read -r -a srun_args <<<"${SRUN_ARGS:-}"
  exec srun -p "$partition" --job-name "$job" \
    --gres "gpu:${GPUS_PER_NODE:-8}" \
    --ntasks "${GPUS:-8}" \
    --ntasks-per-node "${GPUS_PER_NODE:-8}" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${srun_args[@]+"${srun_args[@]}"} \
    "$python" -u "$@"
}
