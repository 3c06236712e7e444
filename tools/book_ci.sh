#!/usr/bin/env bash
# The book of docs/ (book.toml), built into target/book, and whether every link in it and in the pages as a forge shows
# them leads somewhere. MDBOOK is the program, where it is not to be had from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"

if [ -z "${MDBOOK:-}" ]; then
  tools="$target/tools/book"
  # Again where the version has changed.
  if ! cmp -s tools/requirements-book.txt "$tools/requirements-book.txt"; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r tools/requirements-book.txt
    cp tools/requirements-book.txt "$tools/"
  fi
  MDBOOK="$tools/bin/mdbook"
fi

rm -rf "$target/book"
# What it warns of is shown wrongly: a `<tag>` in a text that is not code, for one.
said="$(mktemp)"
trap 'rm -f "$said"' EXIT
"$MDBOOK" build --dest-dir "$(realpath -m "$target/book")" 2>&1 | tee "$said"
if grep -q 'WARN' "$said"; then
  echo "error: mdBook warns" >&2
  exit 1
fi
python3 tools/check_book.py "$target/book"
