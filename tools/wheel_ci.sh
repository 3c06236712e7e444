#!/usr/bin/env bash
# The wheel of the graders (python/): built, installed into a fresh environment, tested. `OUT` keeps it.
# GRADE is the program `grade`, which must say the same (target/debug/grade); left out where it is not built.
set -euo pipefail
cd "$(dirname "$0")/.."
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
[ -n "${GRADE:-}" ] || [ ! -x "$target/debug/grade" ] || GRADE="$target/debug/grade"
export GRADE="${GRADE:+$(realpath "$GRADE")}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet --disable-pip-version-check -r tools/requirements-wheel.txt

cargo fmt --manifest-path python/Cargo.toml --check
begun=$SECONDS
"$work/build/bin/maturin" build --release --locked --quiet --manifest-path python/Cargo.toml --target-dir "$target/wheel" --out "$work/dist"
wheel=("$work"/dist/*.whl)
echo "${wheel[0]##*/}: $(du -k "${wheel[0]}" | cut -f1) KiB, built in $((SECONDS - begun)) s"

# As a user has it: the wheel and nothing else of ours in an environment of its own.
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pytest=="$(sed -n 's/^pytest==//p' tools/requirements-wheel.txt)" "${wheel[0]}"
"$work/venv/bin/python" -m pytest -q -p no:cacheprovider --durations=3 python/tests
# The stubs say what the module has, and the package is typed.
"$work/build/bin/mypy" --strict --cache-dir="$work/mypy" python/lib
"$work/build/bin/pip" install --quiet --disable-pip-version-check --no-deps "${wheel[0]}"
(cd "$work" && build/bin/stubtest visual_rl_grade._core)
# The part that knows no Python.
PYO3_BUILD_EXTENSION_MODULE=1 cargo test --quiet --locked --release --manifest-path python/Cargo.toml --target-dir "$target/wheel" --test batch
[ -z "${OUT:-}" ] || { mkdir -p "$OUT" && cp "${wheel[0]}" "$OUT"; }
