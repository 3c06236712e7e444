#!/usr/bin/env bash
# A run on the GPUs of several machines, started by Open MPI: examples/cluster/mpirun.sh HOSTS [train's arguments].
# HOSTS has a line `NAME slots=8` for each machine. The same command resumes, also with other machines.
set -euo pipefail
hosts="$1"
shift
# Each rank takes the GPU of its number on its machine. Processors are shared by `train` itself, so nothing is bound.
# -q leaves out what mpirun has to say about an exit code beside the program's own line.
exec mpirun -q --hostfile "$hosts" --map-by ppr:8:node --bind-to none \
  -x PATH -x LD_LIBRARY_PATH -x CUDA_PATH \
  "${TRAIN:-target/release/train}" "$@"
