#!/usr/bin/env bash
# What docs/performance.md wants to know about one NVIDIA GPU: whether the kernels are right there, the step beside PyTorch's, decode against the memory-bandwidth
# floor, the update against the matmul peak, a full 7B update in 80 GB, and VGPO's own cost. About an hour; results in $OUT.
#
#   pip install -r bench/requirements.txt
#   cargo build --release --bin bench --features cuda
#   bench/gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-bench-results}
BENCH=${BENCH:-target/release/bench}
SIZES=(--prompts 8 --rollouts 8 --image 672 --response-tokens 512)
mkdir -p "$OUT"
nvidia-smi | tee "$OUT/gpu.txt"

# Every kernel against its default, with fusion and without, in f32, f16 and bf16.
if command -v cargo >/dev/null; then
  cargo test --release -p kernels --features kernels/cuda --test gpu 2>&1 | tee "$OUT/kernels.txt" || echo kernels | tee -a "$OUT/failed.txt"
fi

# Both sides in turn. decode_bytes_per_s of our lines against the card's bandwidth is the share of the decode floor;
# share_of_peak counts the model's FLOPs of the whole step against the matmul that was measured at the start.
for preset in 3b 7b; do
  python3 bench/compare.py --preset $preset --device cuda --rounds 2 --steps 2 --bench "$BENCH" --raw "$OUT/$preset.jsonl" \
    "${SIZES[@]}" | tee "$OUT/$preset.md" || echo "compare $preset failed" | tee -a "$OUT/failed.txt"
done

GPU=(--backend cuda --dtype bf16 --moments-dtype bf16 --grads-dtype bf16 --master-weights false)
step() { "$BENCH" step "${GPU[@]}" "${SIZES[@]}" --steps 3 --json "$@"; }
step --preset 3b --algorithm vgpo --old-log-probs rollout > "$OUT/3b_vgpo_rollout.jsonl" || echo vgpo >> "$OUT/failed.txt"
for how in always never; do
  step --preset 3b --recompute $how > "$OUT/3b_recompute_$how.jsonl" || echo "recompute $how" >> "$OUT/failed.txt"
done
"$BENCH" sweep --preset 3b "${GPU[@]}" --prompts 8 --image 672 response --values 128,256,512,1024 --plot "$OUT/response" | tee "$OUT/response.md" || echo "sweep response" >> "$OUT/failed.txt"
"$BENCH" sweep --preset 3b "${GPU[@]}" --prompts 8 --image 672 --response-tokens 256 rollouts --values 4,8,16 --plot "$OUT/rollouts" | tee "$OUT/rollouts.md" || echo "sweep rollouts" >> "$OUT/failed.txt"
[ ! -e "$OUT/failed.txt" ] || { echo "some runs failed: $(cat "$OUT/failed.txt")"; exit 1; }
