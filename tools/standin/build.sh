#!/usr/bin/env bash
# Builds the stand-in for CUDA (cuda.c, nvrtc.c, nccl.c) into a folder: driver/ for the driver, nvrtc/ for the compiler,
# nccl/ for NCCL, cuda/ for the headers that are looked for. Then, for example:
#   LD_LIBRARY_PATH=DIR/driver:DIR/nvrtc CUDA_PATH=DIR/cuda STANDIN_LOG=log.txt bench step --preset 7b --weights fill ...
# Usage: build.sh DIR
set -euo pipefail
out=${1:?usage: build.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out/driver" "$out/nvrtc" "$out/nccl" "$out/cuda/include"
flags=(-O2 -shared -fPIC -Wall -Wextra -Wno-unused-parameter)
# Under a temporary name first, as another test may be using the file.
build() {
  "${CC:-gcc}" "${flags[@]}" -o "$2.$$" "$here/$1" "${@:3}" -lpthread
  mv -f "$2.$$" "$2"
}
build cuda.c "$out/driver/libcuda.so.1"
ln -sf libcuda.so.1 "$out/driver/libcuda.so"
build nvrtc.c "$out/nvrtc/libnvrtc.so"
build nccl.c "$out/nccl/libnccl.so" -L"$out/driver" -lcuda
