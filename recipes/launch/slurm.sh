#!/usr/bin/env bash
# A run on several machines by Slurm:
#
#     sbatch --export=ALL,RECIPE=story,RUN=/shared/runs/story recipes/launch/slurm.sh
#
# Slurm's warning before the time is up (--signal) lets the run save; with --requeue it then goes on by itself. RUN and
# the data lie on the cluster's shared file system.
#SBATCH --job-name=circius
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

: "${RECIPE:?name a recipe}" "${RUN:?name the folder of the run}"
VERB=${VERB:-pretrain}
MORE=${MORE:-"--set step_tokens=131072 --set dtype=bfloat16"} # 16 micro-batches, one for each GPU
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# shellcheck disable=SC2086 - MORE is several words
srun .venv/bin/torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" --max-restarts 3 \
    -m circius "$VERB" --recipe "$RECIPE" --out "$RUN" $MORE
