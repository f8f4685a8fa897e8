#!/usr/bin/env bash
# A sweep on several machines under Slurm: a Ray cluster for the duration of the job, with as many parallel runs as fit.
#
#   sbatch configs/ray_slurm.sh --config-file configs/sweeps/vpt_linear.yaml DATA.DATAPATH /data/vtab-1k
#   GPUS_PER_RUN=0.5 sbatch configs/ray_slurm.sh --config-file configs/sweeps/study.yaml DATA.DATAPATH /data/vtab-1k
#
# Needs ViTune's extra ray (pip install 'vitune[ray]'); this folder, OUTPUT_DIR and the data must be visible to all
# machines. When its time is up, the job is requeued and the sweep continues.
#SBATCH --job-name=vitune-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
# --signal: three minutes before the time limit this script gets SIGTERM and forwards it to the sweep.
set -uo pipefail

# Commands are those of .venv where there is one, as in a checkout, else those of the environment that submits the job.
[ -d .venv ] && export PATH="$PWD/.venv/bin:$PATH"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$head:$((20000 + SLURM_JOB_ID % 20000))
resources=(--num-cpus "${SLURM_CPUS_PER_TASK:-1}" --num-gpus "${SLURM_GPUS_ON_NODE:-0}")

srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --port "${address#*:}" "${resources[@]}" --block &
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude "$head" bash -c '
    until ray start --address "$0" "${@}" --block; do sleep 5; done
  ' "$address" "${resources[@]}" &
fi
until ray status --address "$address" >/dev/null 2>&1; do sleep 2; done

vitune tune --ray "$address" --gpus-per-run "${GPUS_PER_RUN:-1}" "$@" &
sweep=$!
trap 'kill -TERM $sweep' TERM
wait "$sweep"
status=$?
if [ "$status" -gt 128 ]; then # a signal ended the wait, not the sweep
  wait "$sweep"
  status=$?
fi
[ "$status" -eq 75 ] && scontrol requeue "$SLURM_JOB_ID"
kill $(jobs -p) 2>/dev/null
exit "$status"
