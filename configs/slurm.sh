#!/usr/bin/env bash
# One run on several GPUs under Slurm, requeued and resumed when its time is up:
#
#   sbatch configs/slurm.sh --config-file configs/vtab.yaml DATA.NAME cifar100 DATA.DATAPATH /data/vtab-1k
#
# Adapt the lines below to your cluster. --ntasks-per-node 1 makes an ordinary run on one GPU.
#SBATCH --job-name=vitune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
# --signal: two minutes before the time limit every process gets SIGTERM, finishes its step, saves
# and exits with status 75.
set -uo pipefail

# Commands are those of .venv where there is one, as in a checkout, else those of the environment that submits the job.
[ -d .venv ] && export PATH="$PWD/.venv/bin:$PATH"

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# Each task is one process on one GPU; --resume continues an earlier part of this job, if there was one.
srun --kill-on-bad-exit=1 bash -c '
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
  exec vitune train "$@" --resume
' _ "$@"
status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
