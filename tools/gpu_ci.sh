#!/usr/bin/env bash
# Compiles every kernel of whole runs with the real NVRTC, for an A100 (sm_80) and an H100 (sm_90), without a GPU: the
# driver is the stand-in of tools/standin, the compiler and its headers come from PyPI. The programs are the ones that
# `cargo build --features cuda` left in target/debug, or in the folder that is given.
# Usage: tools/gpu_ci.sh [FOLDER OF THE PROGRAMS]
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
programs=$(cd "${1:-$target/debug}" && pwd)
work=$target/gpu-ci
mkdir -p "$work"
work=$(cd "$work" && pwd)

# Wheels without dependencies; nothing of them is imported.
wheels=(nvidia-cuda-nvrtc==13.2.86 nvidia-cuda-runtime==13.2.86 nvidia-cuda-crt==13.2.86 nvidia-cuda-cccl==13.3.5.0.6)
cuda=$work/cuda-13.2.86/nvidia/cu13
fetch() { "$1" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target "$work/cuda-13.2.86" "${wheels[@]}"; }
if [ ! -e "$cuda/complete" ]; then
  rm -rf "$work/cuda-13.2.86"
  # A Python without pip, or one that its system keeps for itself, may still make an environment that has one.
  fetch python3 || { python3 -m venv --clear "$work/venv" && fetch "$work/venv/bin/python"; } || {
    echo "error: NVRTC and its headers could not be had from PyPI (${wheels[*]}): python3 with pip or venv, and a network, are needed" >&2
    exit 1
  }
  touch "$cuda/complete"
fi
tools/standin/build.sh "$work/standin"

# What a program runs as: the driver that computes nothing, the compiler that compiles.
gpu() {
  LD_LIBRARY_PATH=$work/standin/driver:$cuda/lib CUDA_PATH=$cuda STANDIN_LOG=$here/log.$name STANDIN_CAPABILITY=$capability \
    XDG_CACHE_HOME=$here/cache "$programs/$1" "${@:2}" >"$here/$name.out" 2>&1 || {
    echo "$name for sm_$capability failed:"
    tail -n 20 "$here/$name.out"
    return 1
  }
  local kernels refused
  kernels=$(grep -c ' K ' "$here/log.$name" || true)
  refused=$(grep -c ' X ' "$here/log.$name" || true)
  echo "$name for sm_$capability: $kernels kernels compiled and loaded, $refused refused calls (${SECONDS}s)"
  [ "$kernels" -gt 50 ] && [ "$refused" = 0 ]
}

runs() {
  capability=$1
  here=$work/sm_$capability
  # Nothing is kept from the last time: every kernel is compiled.
  rm -rf "$here"
  mkdir -p "$here"
  name=train gpu train --backend cuda trainer.output_dir="$here/run" trainer.max_steps=2 trainer.check_device=false \
    stages.0.steps=1 stages.1.steps=1 stages.2.steps=1 stages.3.steps=1 stages.4.steps=1 stages.5.steps=2 || return 1
  name=generate gpu generate --model tests/fixtures/models/tied_gqa --image tests/fixtures/images/wide.png --prompt 'What is this?' \
    --max-new-tokens 4 --backend cuda || return 1
  name=bench gpu bench step --preset 7b --check-device false --backend cuda --dtype bf16 --moments-dtype bf16 --grads-dtype bf16 --master-weights false \
    --weights fill --peak-tflops 1 --prompts 2 --rollouts 8 --image 336 --response-tokens 4 --steps 1 --algorithm vgpo --json || return 1
}

runs 80 &
first=$!
failed=0
runs 90 || failed=1
wait "$first" || failed=1
exit "$failed"
