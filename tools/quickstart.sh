#!/usr/bin/env bash
# From a fresh clone to a trained model and two pictures, on the CPU.
set -euo pipefail

usage() {
  cat <<'END'
Usage: bash tools/quickstart.sh [--task TASK] [--work-dir DIR] [--help]

  1. sets up .venv (tools/setup_env.sh): about 5 minutes and 7 GB on 2 cores
     the first time, seconds afterwards;
  2. draws the task's mini data set from scikit-learn's handwritten digits
     (data/mini, 20 MB at most): 10 seconds;
  3. trains a model with a small VMamba from scratch, as 2 processes on the
     CPU: 2 to 7 minutes on 2 cores;
  4. tests it on digits by other writers, without and with test-time
     augmentation: 1 minute;
  5. draws test images and the training curve: 30 seconds.

Run it again after an interruption: it resumes from the last finished epoch.

  --task TASK      detection (the default): Mask R-CNN, scenes of digits;
                   segmentation: UPerNet, the same scenes;
                   classification: single digits;
                   change: ChangeMamba, digits that come, go and move between
                   two pictures; or all of them
  --work-dir DIR   where checkpoints, logs and pictures go, in a folder for
                   each task (default: work_dirs/quickstart in the repository)
END
}

fail() {
  echo "quickstart.sh: $1" >&2
  exit "${2:-1}"
}

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$repo/work_dirs/quickstart
tasks=(detection)
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --task)
      case ${2:-} in
        all) tasks=(detection segmentation classification change) ;;
        detection | segmentation | classification | change) tasks=("$2") ;;
        *) fail "--task is '${2:-}', but detection, segmentation, classification, change or all is needed" 2 ;;
      esac
      shift 2
      ;;
    --work-dir)
      [ -n "${2:-}" ] || fail "--work-dir needs a folder; see --help" 2
      mkdir -p "$2" || fail "cannot create the folder '$2'" 2
      out=$(cd "$2" && pwd)
      shift 2
      ;;
    *) fail "unknown argument '$1'; see --help" 2 ;;
  esac
done
cd "$repo"
# Do not use a GPU, so that the run is the same on all machines.
export CUDA_VISIBLE_DEVICES=

# settings TASK: its config, data set, minutes of training and the metrics to
# report (name in the log=name in the report).
settings() {
  case $1 in
    detection)
      config=configs/mini/mask-rcnn_vmamba-mini_mini-coco.py
      data=coco minutes=5
      metrics=(coco/bbox_mAP='box mAP' coco/bbox_mAP_50='box AP50'
        coco/segm_mAP='mask mAP' coco/segm_mAP_50='mask AP50')
      ;;
    segmentation)
      config=configs/mini/vmamba-mini_upernet_mini-ade20k.py
      data=ade20k minutes=7
      metrics=(mIoU=mIoU aAcc='pixel accuracy')
      ;;
    classification)
      config=configs/mini/vmamba-mini_mini-in1k.py
      data=imagenet minutes=3
      metrics=(accuracy/top1='top-1 accuracy')
      ;;
    change)
      config=configs/mini/changemamba_vmamba-mini_mini-levir-cd-plus.py
      data=levir_cd_plus minutes=2
      metrics=(F1=F1 IoU=IoU kappa=kappa)
      ;;
  esac
}

heading() { printf '\n== %s\n' "$1"; }

# logged LOG COMMAND...: run the command, write its output to LOG and show only
# its progress.
logged() {
  local log=$1
  shift
  echo "   (whole log: $log)"
  if ! "$@" 2>&1 | tee "$log" | show_progress; then
    tail -n 20 "$log" >&2
    fail "this step failed; whole log: $log"
  fi
}

# Shorten mmengine's progress lines; hide all other lines.
show_progress() {
  local number='([0-9.]+)' place='\[ *([0-9]+)\]\[ *([0-9]+/[0-9]+)\]'
  sed -unE \
    -e "s|.*Epoch\(train\) *$place.* eta: ([^ ]+( days?, [^ ]+)?) .* loss: $number.*|   epoch \1, iteration \2: loss \5, time left \3|p" \
    -e "s|.*Epoch\(val\) *$place.*bbox_mAP: $number.*segm_mAP: $number.*|   epoch \1, test set: box mAP \3, mask mAP \4|p" \
    -e "s|.*Epoch\(val\) *$place.* (mIoU\|accuracy/top1\|F1): $number.*|   epoch \1, test set: \3 \4|p" \
    -e "s|.*Epoch\(test\) *\[ *([0-9]+/[0-9]+)\].* eta: ([^ ]+) .*|   batch \1, time left \2|p"
}

# metric LOG NAME: print a metric without and with test-time augmentation.
metric() {
  local row
  row=$(awk -v name="$2" '$1 == name && NF == 3 { row = $2 " " $3 } END { print row }' "$1")
  [ -n "$row" ] || fail "no result $2 in $1"
  echo "$row"
}

# run TASK: train, test and draw.
run() {
  local task=$1 work=$out/$1 checkpoint tta_log row pair
  settings "$task"
  mkdir -p "$work"
  tta_log=$work/test_tta.log

  heading "$task 2/5 data: handwritten digits"
  python -m mmssm.datasets.mini "$data"

  heading "$task 3/5 training with VMamba on 2 CPU processes (about $minutes minutes on 2 cores)"
  logged "$work/train.log" bash tools/dist_train.sh "$config" 2 --work-dir "$work" --resume

  heading "$task 4/5 testing on digits by other writers"
  checkpoint=$(cat "$work/last_checkpoint")
  logged "$work/test.log" bash tools/dist_test.sh "$config" "$checkpoint" 2 --work-dir "$work/test"
  echo '   and with test-time augmentation'
  logged "$tta_log" bash tools/dist_test.sh "$config" "$checkpoint" 2 --work-dir "$work/test" --tta

  heading "$task 5/5 pictures"
  python tools/visualization/vis_predictions.py "$config" "$checkpoint" --score-thr 0.7 --out "$work/predictions.png" >"$work/pictures.log" 2>&1 ||
    { tail -n 20 "$work/pictures.log" >&2; fail "drawing failed; whole log: $work/pictures.log"; }
  python tools/analysis_tools/plot_logs.py "$work" --out "$work/curve.png" >/dev/null

  # Read all results before printing any: a missing one stops the script.
  report=''
  for pair in "${metrics[@]}"; do
    row=$(metric "$tta_log" "${pair%%=*}")
    report+=$(LC_ALL=C printf '%-16s %12.2f %10.2f' "${pair#*=}:" "${row% *}" "${row#* }")$'\n'
  done
  reports+=$(printf '\n%-16s %12s %10s\n%s\n%s\n%s' "$task" 'single scale' '--tta' "${report%$'\n'}" \
    "$work/predictions.png" "$work/curve.png")$'\n'
}

heading '1/5 environment'
bash tools/setup_env.sh
export PATH=${MMSSM_VENV:-$repo/.venv}/bin:$PATH
reports=''
for task in "${tasks[@]}"; do
  run "$task"
done
heading 'results on the test set'
printf '%s' "$reports"
