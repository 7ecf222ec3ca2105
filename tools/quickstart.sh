#!/usr/bin/env bash
# From a fresh clone to a trained detector and two pictures, on the CPU.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash tools/quickstart.sh [--work-dir DIR] [--help]

  1. sets up .venv (tools/setup_env.sh): about 14 minutes and 7 GB on 2 cores
     the first time, seconds afterwards;
  2. draws the mini detection set from scikit-learn's handwritten digits
     (data/mini/coco, 8 MB): 10 seconds;
  3. trains Mask R-CNN with a small VMamba from scratch, as 2 processes on the
     CPU: about 5 minutes on 2 cores;
  4. tests it on digits by writers it has never seen: 30 seconds;
  5. draws 8 test images and the training curve: 30 seconds.

Run it again after an interruption: it goes on from the last finished epoch.

  --work-dir DIR   where checkpoints, logs and pictures go
                   (default: work_dirs/quickstart in the repository)
EOF
}

fail() {
  echo "quickstart.sh: $1" >&2
  exit "${2:-1}"
}

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$repo/work_dirs/quickstart
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --work-dir)
      [ -n "${2:-}" ] || fail "--work-dir needs a folder; see --help" 2
      mkdir -p "$2" || fail "cannot create the folder '$2'" 2
      work=$(cd "$2" && pwd)
      shift 2
      ;;
    *) fail "unknown argument '$1'; see --help" 2 ;;
  esac
done
cd "$repo"
mkdir -p "$work"

config=configs/mini/mask-rcnn_vmamba-mini_mini-coco.py
train_log=$work/train.log
test_log=$work/test.log
# A GPU is not used even if there is one: the same run everywhere.
export CUDA_VISIBLE_DEVICES=

heading() { printf '\n== %s\n' "$1"; }

# logged LOG COMMAND...: run the command with its output in LOG and only its
# progress on the terminal.
logged() {
  local log=$1
  shift
  echo "   (whole log: $log)"
  if ! "$@" 2>&1 | tee "$log" | show_progress; then
    tail -n 20 "$log" >&2
    fail "this step failed; whole log: $log"
  fi
}

# One short line out of each of mmengine's progress lines.
show_progress() {
  local number='([0-9.]+)' place='\[ *([0-9]+)\]\[ *([0-9]+/[0-9]+)\]'
  sed -unE \
    -e "s|.*Epoch\(train\) *$place.* eta: ([^ ]+( days?, [^ ]+)?) .* loss: $number.*|   epoch \1, iteration \2: loss \5, time left \3|p" \
    -e "s|.*Epoch\(val\) *$place.*bbox_mAP: $number.*segm_mAP: $number.*|   epoch \1, test set: box mAP \3, mask mAP \4|p"
}

# metric NAME: one of the results in the test's log.
metric() {
  local value
  value=$(sed -nE "s|.*Epoch\(test\).*coco/$1: ([0-9.]{5}).*|\1|p" "$test_log" | tail -n 1)
  [ -n "$value" ] || fail "no result coco/$1 in $test_log"
  echo "$value"
}

heading '1/5 environment'
bash tools/setup_env.sh
export PATH=${MMSSM_VENV:-$repo/.venv}/bin:$PATH

heading '2/5 data: scenes of handwritten digits'
python -m mmssm.datasets.mini

heading '3/5 training Mask R-CNN with VMamba on 2 CPU processes (about 5 minutes on 2 cores)'
logged "$train_log" bash tools/dist_train.sh "$config" 2 --work-dir "$work" --resume

heading '4/5 testing on digits by other writers'
checkpoint=$(cat "$work/last_checkpoint")
logged "$test_log" bash tools/dist_test.sh "$config" "$checkpoint" 2 --work-dir "$work/test"

heading '5/5 pictures'
python tools/visualization/vis_detections.py "$config" "$checkpoint" --num 8 --score-thr 0.7 --out "$work/detections.png" >"$work/pictures.log" 2>&1 ||
  { tail -n 20 "$work/pictures.log" >&2; fail "drawing failed; whole log: $work/pictures.log"; }
python tools/analysis_tools/plot_logs.py "$work" --out "$work/curve.png" >/dev/null

# Read all results before printing any, so that a missing one stops the script.
# One a line: bash heeds only the last substitution's status in an assignment.
box=$(metric bbox_mAP)
box50=$(metric bbox_mAP_50)
box75=$(metric bbox_mAP_75)
mask=$(metric segm_mAP)
mask50=$(metric segm_mAP_50)
mask75=$(metric segm_mAP_75)
heading 'results on the test set'
printf '%6s  %5s  %5s  %5s\n' '' mAP AP50 AP75 box "$box" "$box50" "$box75" mask "$mask" "$mask50" "$mask75"
echo
LC_ALL=C printf 'box AP50: %.2f\nmask AP50: %.2f\n' "$box50" "$mask50"
echo "$work/detections.png"
echo "$work/curve.png"
