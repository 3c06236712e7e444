#!/usr/bin/env bash
# What this project wants to know of one NVIDIA GPU, in one command: whether it computes rightly, and how fast.
#
#   bench/gpu.sh prepare     on any machine: builds the programs into .gpu/, stripped, and compiles their kernels for
#                            $CAPABILITY (90) under the stand-in driver with the real NVRTC, for the card's cache
#   bench/gpu.sh twelve      twelve minutes: right or wrong, products, decode, update, the PyTorch peer
#   bench/gpu.sh hour        all of that, longer, and the comparisons of docs/performance.md
#
# Results and logs go to $OUT (bench-results); bench/predicted.py puts them beside bench/predictions.tsv at the end.
# PROGRAMS is the folder of the programs (.gpu, else target/release). For the peer: pip install -r bench/requirements.txt
#
# STANDIN=1 runs the whole form under tools/standin, without a GPU, to see that every line of this script works: values
# are zeros there and times mean nothing, so `doctor` and `bench gemm` have to find something WRONG, the check in each
# step is off, and PyTorch and the profiler are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
form=${1:-}
OUT=${OUT:-bench-results}
STANDIN=${STANDIN:-}
# Limits are a card's; under the stand-in the host does all, beside other work.
PATIENCE=${STANDIN:+10}
PATIENCE=${PATIENCE:-1}
PROGRAMS=${PROGRAMS:-$([ -x .gpu/bench ] && echo .gpu || echo target/release)}

fail() { echo "error: $1" >&2; exit 2; }

# --- prepare ---------------------------------------------------------------------------------------------------------
# The folder of compiled kernels that a program with this cache makes for its card: sm90-driver13000-nvrtc13.2-BUILD.
kernels_of() { find "$1/visual-rl/kernels" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | head -n 1; }

prepare() {
  cargo build --release --features cuda --bin bench --bin doctor --bin train
  mkdir -p .gpu
  for program in bench doctor train; do
    strip -o ".gpu/$program" "target/release/$program"
  done
  # The real compiler, from PyPI; tools/gpu_ci.sh leaves it there.
  local cuda
  cuda=$(find target/gpu-ci -maxdepth 3 -type d -path '*nvidia/cu13' 2>/dev/null | head -n 1)
  [ -n "$cuda" ] || fail "the real NVRTC is not there: run tools/gpu_ci.sh first"
  tools/standin/build.sh target/standin
  # A path from the root, as programs take no other for a cache.
  local cache=$PWD/.gpu/cache
  rm -rf "$cache"
  export LD_LIBRARY_PATH=target/standin/driver:$cuda/lib CUDA_PATH=$cuda STANDIN_CAPABILITY=${CAPABILITY:-90}
  # Each program has a folder of its own. What they end with does not matter here: values are zeros.
  for preset in 3b 7b; do
    XDG_CACHE_HOME=$cache/bench .gpu/bench step "${GPU[@]}" --check-device false --preset $preset --weights fill --peak-tflops 1 \
      --prompts 8 --rollouts 8 --image 336 --response-tokens 8 --steps 1 --json
  done
  XDG_CACHE_HOME=$cache/bench .gpu/bench gemm --backend cuda --dtype bf16 --preset 7b --once >/dev/null || true
  XDG_CACHE_HOME=$cache/doctor .gpu/doctor --preset 7b --backend cuda --json >/dev/null || true
  local nvrtc
  nvrtc=$(basename "$(kernels_of "$cache/bench")")
  echo "${nvrtc%-*-*}" > "$cache/made-for"
  tar -C .gpu -czf .gpu/cache.tar.gz cache
  du -sh .gpu/* | tee .gpu/sizes.txt
}

# Gives the kernels that were compiled beforehand to the programs of this machine, if its driver takes them: PTX of a
# newer compiler than the driver is refused.
unpack() {
  [ -e .gpu/cache.tar.gz ] || { echo "no kernels were compiled beforehand: the first start compiles them"; return; }
  tar -C "$OUT" -xzf .gpu/cache.tar.gz
  local made_for driver
  made_for=$(sed 's/.*nvrtc//; s/-.*//' "$OUT/cache/made-for")
  driver=$(nvidia-smi | sed -n 's/.*CUDA Version: *\([0-9.]*\).*/\1/p')
  if [ "$(printf '%s\n%s\n' "$made_for" "$driver" | sort -V | head -n 1)" != "$made_for" ]; then
    echo "the driver takes PTX up to CUDA $driver, the kernels were compiled by NVRTC $made_for: they are compiled anew"
    return
  fi
  for program in bench doctor; do
    # A child of the doctor that takes four bytes is enough to name the folder of this card.
    local here there
    XDG_CACHE_HOME=$OUT/named/$program "$PROGRAMS/doctor" --backend cuda --child fill --bytes 4
    here=$(basename "$(kernels_of "$OUT/named/$program")")
    there=$(kernels_of "$OUT/cache/$program")
    [ "${here%%-*}" = "$(basename "$there" | cut -d- -f1)" ] || { echo "compiled for another card"; return; }
    # The build of a program is the last part of its folder's name.
    mv "$there" "$(dirname "$there")/${here%-*-*}-$(basename "$there" | rev | cut -d- -f1,2 | rev)"
  done
}

# --- parts -----------------------------------------------------------------------------------------------------------
GPU=(--backend cuda --dtype bf16 --moments-dtype bf16 --grads-dtype bf16 --master-weights false)
CHECK=()
# `bench step` as this script calls it, a program and not a function, as `timeout` starts it; set in `begin`.
STEP=()

# part NAME SECONDS COMMAND...: its output into $OUT/NAME, what it says into $OUT/NAME.log; a failure is noted and the
# next part begins.
part() {
  local name=$1 limit=$2 start=$SECONDS code=0
  shift 2
  echo "== $name (${SECONDS}s)"
  timeout "$((limit * PATIENCE))" "$@" > "$OUT/$name" 2> "$OUT/$name.log" || code=$?
  echo "$name $((SECONDS - start)) $code" >> "$OUT/parts.txt"
  if [ $code != 0 ]; then
    echo "$name ended with $code: $(tail -n 1 "$OUT/$name.log")" | tee -a "$OUT/failed.txt"
  fi
}

# The same where something WRONG has to be found under the stand-in.
judged() {
  if [ -z "$STANDIN" ]; then part "$@"; return; fi
  local name=$1 limit=$2 code=0
  shift 2
  echo "== $name (${SECONDS}s), which has to see zeros"
  timeout "$((limit * PATIENCE))" "$@" > "$OUT/$name" 2> "$OUT/$name.log" || code=$?
  if [ $code != 1 ] || ! grep -q -e WRONG -e '"right":false' "$OUT/$name"; then
    echo "$name ended with $code and took zeros for right" | tee -a "$OUT/failed.txt"
  fi
}

torch() {
  if [ -n "$STANDIN" ]; then echo "== ${1} is left out under the stand-in"; return; fi
  part "$@"
}

right_or_wrong() {
  judged doctor.jsonl 120 "$PROGRAMS/doctor" --preset 7b --backend cuda --json
  local once=()
  [ -z "$STANDIN" ] || once=(--once)
  judged gemm.jsonl 150 "$PROGRAMS/bench" gemm --preset 7b --backend cuda --dtype bf16 --json "${once[@]}"
  torch torch_gemm.jsonl 90 python3 bench/torch_gemm.py --preset 7b
}

# $1 tokens of a response, $2 steps
steps() {
  for preset in 3b 7b; do
    part "step_$preset.jsonl" 300 "${STEP[@]}" --preset $preset --prompts 8 --rollouts 8 --image 336 --response-tokens "$1" --steps "$2"
  done
}

# Decoding over so many keys: what a token costs by their number is attention's part.
decode_slope() {
  for keys in 200 1000 2000; do
    part "decode_$keys.jsonl" 120 "${STEP[@]}" --preset 7b --prompts 8 --rollouts 8 --image 0 --text-tokens $((keys - 32)) --response-tokens 64 --steps 1
  done
}

profile() {
  if [ -n "$STANDIN" ] || ! command -v ncu >/dev/null; then echo "== no profiler here"; return; fi
  part profile.txt 150 ncu --clock-control none --launch-skip 2000 --launch-count 60 --section SpeedOfLight --section LaunchStats \
    "$PROGRAMS/bench" step "${GPU[@]}" --weights fill --preset 3b --prompts 2 --rollouts 8 --image 0 --response-tokens 16 --steps 1 --json
}

standin() {
  tools/standin/build.sh target/standin
  export LD_LIBRARY_PATH=target/standin/driver:target/standin/nvrtc CUDA_PATH=$PWD/target/standin/cuda
  export XDG_CACHE_HOME=$OUT/cache STANDIN_MEMORY_GB=${STANDIN_MEMORY_GB:-150}
  CHECK=(--check-device false --peak-tflops 1)
}

begin() {
  [ -x "$PROGRAMS/bench" ] && [ -x "$PROGRAMS/doctor" ] || fail "no programs in $PROGRAMS: bench/gpu.sh prepare"
  mkdir -p "$OUT"
  OUT=$(cd "$OUT" && pwd)
  : > "$OUT/parts.txt"
  rm -f "$OUT/failed.txt"
  [ -z "$STANDIN" ] || standin
  STEP=("$PROGRAMS/bench" step "${GPU[@]}" "${CHECK[@]}" --weights fill --json)
  if [ -n "$STANDIN" ]; then return; fi
  nvidia-smi | tee "$OUT/gpu.txt"
  unpack | tee "$OUT/unpack.txt"
  # The doctor's kernels and those of bench are kept apart, as each program has its own.
  export XDG_CACHE_HOME=$OUT/cache/bench
}

end() {
  python3 bench/predicted.py "$OUT" | tee "$OUT/predicted.md"
  if [ -e "$OUT/failed.txt" ]; then
    echo "some parts failed:"
    cat "$OUT/failed.txt"
    exit 1
  fi
}

case $form in
  prepare) prepare ;;
  twelve)
    begin
    right_or_wrong
    steps 128 2
    decode_slope
    profile
    torch torch_step_3b.jsonl 150 python3 bench/torch_step.py --model "$OUT/torch_3b" --init-preset 3b --prompts 8 --rollouts 8 --image 336 \
      --response-tokens 128 --device cuda --dtype bfloat16 --steps 1
    end
    ;;
  hour)
    begin
    right_or_wrong
    steps 512 3
    decode_slope
    profile
    part vgpo_3b.jsonl 600 "${STEP[@]}" --preset 3b --algorithm vgpo --old-log-probs rollout --prompts 8 --rollouts 8 --image 672 --response-tokens 512 --steps 3
    for how in always never; do
      part "recompute_$how.jsonl" 600 "${STEP[@]}" --preset 3b --recompute $how --prompts 8 --rollouts 8 --image 672 --response-tokens 512 --steps 3
    done
    for preset in 3b 7b; do
      torch "compare_$preset.md" 1200 python3 bench/compare.py --preset $preset --device cuda --rounds 2 --steps 2 --bench "$PROGRAMS/bench" \
        --raw "$OUT/compare_$preset.jsonl" --prompts 8 --rollouts 8 --image 672 --response-tokens 512
    done
    end
    ;;
  *) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
