#!/usr/bin/env python3
"""What bench/gpu.sh measured, line by line beside what was predicted (bench/predictions.tsv).

    python3 bench/predicted.py FOLDER

Prints a Markdown table: a value below, within or above its prediction, or that it was not measured. Zeros of a stand-in driver are measured
times of nothing; the table says "stand-in" then.
"""
import json
import os
import re
import statistics
import sys


def rows(folder, name):
    """The JSON lines of a file; none where it is not there."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return []
    return [json.loads(line) for line in open(path) if line.startswith("{")]


def last(folder, name, key, scale=1.0):
    """The median over all steps but the first, which compiles."""
    values = [row[key] for row in rows(folder, name) if row.get(key) is not None]
    values = values[1:] or values
    return scale * statistics.median(values) if values else None


def token_ms(folder, name):
    """Milliseconds of a decoded token of the whole batch."""
    steps = rows(folder, name)[-1:]
    return 1e3 * (steps[0]["generate_s"] - steps[0]["prefill_s"] - steps[0]["vision_s"]) / steps[0]["response_tokens"] if steps else None


def from_doctor(folder, pattern):
    for row in rows(folder, "doctor.jsonl"):
        found = re.search(pattern, row["remark"]) if row["check"] == "speed" else None
        if found:
            return float(found[1])
    return None


def product(folder, m, key, scale):
    """The fastest right projection of so many rows."""
    values = [scale * row[key] for row in rows(folder, "gemm.jsonl") if row["product"] == "x W^T" and row["m"] == m and row["right"] and row[key]]
    return max(values) if values else None


def slope(folder):
    few, many = (token_ms(folder, f"decode_{keys}.jsonl") for keys in (200, 2000))
    return (many - few) / 1.8 if few is not None and many is not None else None


def against(folder):
    ours, peer = last(folder, "step_3b.jsonl", "total_s"), last(folder, "torch_step_3b.jsonl", "total_s")
    return ours / peer if ours and peer else None


MEASURES = {
    "copy": lambda f: from_doctor(f, r"copies (\d+) GB/s"),
    "product_large": lambda f: product(f, 4096, "flops_per_s", 1e-12),
    "product_64_rows": lambda f: product(f, 64, "bytes_per_s", 1e-9),
    "decode_token_3b": lambda f: token_ms(f, "step_3b.jsonl"),
    "decode_token_7b": lambda f: token_ms(f, "step_7b.jsonl"),
    "decode_tokens_7b": lambda f: 64e3 / token_ms(f, "step_7b.jsonl") if token_ms(f, "step_7b.jsonl") else None,
    "decode_slope_7b": slope,
    "optimizer_7b": lambda f: last(f, "step_7b.jsonl", "optimizer_s"),
    "update_share_3b": lambda f: last(f, "step_3b.jsonl", "update_share_of_peak"),
    "update_share_7b": lambda f: last(f, "step_7b.jsonl", "update_share_of_peak"),
    "memory_7b": lambda f: last(f, "step_7b.jsonl", "peak_gib"),
    "against_torch_3b": against,
}


def main():
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit(__doc__)
    folder = sys.argv[1]
    standin = not os.path.exists(os.path.join(folder, "gpu.txt"))
    print("| what | predicted | measured | | by what count |\n|---|---|---|---|---|")
    named = set()
    for line in open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "predictions.tsv")):
        if line.startswith("#"):
            continue
        name, low, high, unit, why = line.rstrip("\n").split("\t")
        named.add(name)
        value = MEASURES[name](folder)
        low, high = float(low), float(high)
        if value is None:
            shown, word = "-", "not measured"
        else:
            shown = f"{value:.3g}"
            word = "stand-in" if standin else "as predicted" if low <= value <= high else "below" if value < low else "above"
        print(f"| {name} | {low:g} to {high:g} {unit} | {shown} | {word} | {why} |")
    if named != set(MEASURES):
        sys.exit(f"predictions.tsv and MEASURES differ: {sorted(named ^ set(MEASURES))}")


main()
