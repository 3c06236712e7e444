#!/usr/bin/env bash
# A run on the GPUs of several machines, started by Slurm: sbatch examples/cluster/slurm.sh [train's arguments].
# The same command resumes, also with another number of nodes.
#SBATCH --job-name=visual-rl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
# Five minutes before the end: a checkpoint, and exit code 130.
#SBATCH --signal=USR1@300
set -euo pipefail
# Slurm lets the other tasks go on when one has failed, unless it is told otherwise.
exec srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-12}" \
  "${TRAIN:-target/release/train}" "$@"
