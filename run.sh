#!/usr/bin/env bash
# Fine-tune with several seeds and print mean and spread.
#
#   bash run.sh digits        the demo: linear, LoRA and LoRA + FreqFit on handwritten digits; a table and a plot
#   bash run.sh fit photos/   from a folder of images to a model and a promise of its accuracy (vitune fit --help)
#   bash run.sh studies       what else there is to ask of runs on the digits: forgetting, shifts, ensembles, pictures
#
#   bash run.sh DATA [ENCODER BATCH_SIZE BASE_LR WEIGHT_DECAY NUM_TOKENS ADAPTER_RATIO FREQFIT] [KEY VALUE ...]
#     bash run.sh cifar100 sup_vitb16_imagenet21k 64 0.1 0.01 0 0 freqfit DATA.DATAPATH /data/vtab-1k
#     bash run.sh folder DATA.DATAPATH photos MODEL.TRANSFER_TYPE lora
#     SEEDS="42 44 82" bash run.sh digits vit_micro_glyphs 64 0.003 0.01 4 0 None MODEL.TRANSFER_TYPE prompt
#
# The arguments before the first KEY mean what they mean in FreqFiT's run.sh; leave any of them out from the right.
# NUM_TOKENS and ADAPTER_RATIO set MODEL.PROMPT.NUM_TOKENS and MODEL.ADAPTER.REDUCTION_FACTOR, 0 leaves them alone.
# SEEDS="42 44 82 100 800" and CONFIG=configs/<file>.yaml come from the environment.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ $# -eq 0 ] || [ "$1" = "-h" ] || [ "$1" = "--help" ]; then
  sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'
  [ $# -gt 0 ]
  exit
fi
bash "$here/env_setup.sh"
python=$here/.venv/bin/python
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" # paths in the arguments are taken from where you are

data=$1
shift
if [ "$data" = digits ] && [ $# -eq 0 ]; then
  exec "$python" -m src.tools.demo ${SEEDS:+--seeds "$SEEDS"}
fi
if [ "$data" = fit ]; then
  exec "$python" -m src.tools.fit "$@"
fi
if [ "$data" = studies ]; then
  exec "$python" -m src.tools.demo_studies "$@"
fi

case "$data" in
  digits | folder) config=configs/$data.yaml ;;
  CUB) config=configs/finetune/cub.yaml ;;
  nabirds) config=configs/finetune/nabirds.yaml ;;
  OxfordFlowers) config=configs/finetune/flowers.yaml ;;
  StanfordDogs) config=configs/finetune/dogs.yaml ;;
  StanfordCars) config=configs/finetune/cars.yaml ;;
  fewshot-* | imagenet*) config=configs/fewshot.yaml ;;
  cifar*-* | resisc45-* | *-full | food101 | aircraft | stl10) config=configs/manyshot.yaml ;;
  *) config=configs/vtab.yaml ;;
esac

settings=(DATA.NAME "$data")
for key in DATA.FEATURE DATA.BATCH_SIZE SOLVER.BASE_LR SOLVER.WEIGHT_DECAY \
  MODEL.PROMPT.NUM_TOKENS MODEL.ADAPTER.REDUCTION_FACTOR FREQFIT; do
  if [ $# -eq 0 ] || [[ $1 =~ ^[A-Z][A-Z_]*(\.[A-Z_]+)*$ ]]; then
    break
  fi
  case "$key $1" in
    "MODEL.PROMPT.NUM_TOKENS 0" | "MODEL.ADAPTER.REDUCTION_FACTOR 0") ;;
    *) settings+=("$key" "$1") ;;
  esac
  shift
done

exec "$python" -m src.tools.runs --config-file "${CONFIG:-$here/$config}" --seeds "${SEEDS:-}" "${settings[@]}" "$@"
