#!/usr/bin/env bash
# A run on several machines by Slurm:
#
#     sbatch --export=ALL,RECIPE=story,RUN=/shared/runs/story recipes/launch/slurm.sh
#
# Slurm's warning before the time is up (--signal, to this script alone) lets the run save and puts the job back into the
# queue, where it goes on by itself; so does a job that was preempted (--requeue). RUN and the data lie on the cluster's
# shared file system.
#SBATCH --job-name=circius
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

: "${RECIPE:?name a recipe}" "${RUN:?name the folder of the run}"
VERB=${VERB:-pretrain}
MORE=${MORE:-"--set step_tokens=131072 --set dtype=bfloat16"} # as many micro-batches for each of the 16 GPUs
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

running=
again() {
    kill -TERM "$running" # srun hands it on to every torchrun
    wait "$running" || true
    scontrol requeue "$SLURM_JOB_ID"
}
trap again USR1

# shellcheck disable=SC2086 - MORE is several words
srun .venv/bin/torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" --max-restarts 3 \
    -m circius "$VERB" --recipe "$RECIPE" --out "$RUN" $MORE &
running=$!
wait "$running"
