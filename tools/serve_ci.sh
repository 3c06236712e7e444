#!/usr/bin/env bash
# `serve` with a fixture's model, asked by the official openai client and as VLMEvalKit and lmms-eval ask, under load.
# The programs `serve` and `generate` must have been built; PROFILE is their folder (target/debug).
set -euo pipefail
cd "$(dirname "$0")/.."
programs="${PROFILE:-${CARGO_TARGET_DIR:-target}/debug}"
model=tests/fixtures/models/tied_gqa
work="$(mktemp -d)"
server=
end() { [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true; rm -rf "$work"; }
trap end EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r tools/requirements-serve.txt

"$programs/serve" --model "$model" --backend flex --port 0 --max-batch-rows "${ROWS:-32}" >"$work/out" 2>"$work/err" &
server=$!
for _ in $(seq 600); do
  grep -q '^ready: ' "$work/out" && break
  kill -0 "$server" 2>/dev/null || { cat "$work/err"; exit 1; }
  sleep 0.1
done
base="$(sed -n 's|^ready: \(http://[^ ]*\) .*|\1|p' "$work/out")"
"$work/venv/bin/python" tools/check_serve.py "$base" --generate "$programs/generate" --model "$model" --load "${LOAD:-200}"
kill -TERM "$server"
wait "$server" # 0, or the check fails
server=
