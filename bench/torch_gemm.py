#!/usr/bin/env python3
"""The products of `bench gemm`, a copy and attention in PyTorch: what the same card does for its own libraries.

    python3 bench/torch_gemm.py --preset 7b [--device cuda] [--dtype bfloat16]

One JSON object a line, with the keys of `bench gemm --json`.
"""
import argparse
import json
import time

import torch

# hidden, query width, key/value width, MLP; heads, key/value heads, head size
PRESETS = {"toy": (128, 128, 128, 352, 4, 4, 32), "3b": (2048, 2048, 256, 11008, 16, 2, 128), "7b": (3584, 3584, 512, 18944, 28, 4, 128)}


def seconds(work, sync):
    work()
    sync()
    start = time.perf_counter()
    work()
    sync()
    repeats = int(min(1000, max(1, 0.05 / max(1e-6, time.perf_counter() - start))))
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        sync()
        best = min(best, (time.perf_counter() - start) / repeats)
    return best


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--preset", choices=list(PRESETS), default="7b")
    p.add_argument("--rows", default="64,4096")
    p.add_argument("--device", default="cuda")
    p.add_argument("--dtype", default="bfloat16")
    a = p.parse_args()
    dev, dt = torch.device(a.device), getattr(torch, a.dtype)
    sync = torch.cuda.synchronize if dev.type == "cuda" else (lambda: None)
    d, q, kv, wide, heads, kv_heads, hd = PRESETS[a.preset]
    draw = lambda *shape: torch.randn(*shape, device=dev, dtype=dt)
    say = lambda **row: print(json.dumps({"engine": "torch", "dtype": a.dtype, **row}), flush=True)

    x = torch.zeros(1 << (27 if dev.type == "cuda" else 22), device=dev)
    s = seconds(lambda: x + 1, sync)
    say(product="copy", seconds=s, bytes_per_s=2 * 4 * x.numel() / s)
    for rows in map(int, a.rows.split(",")):
        for out, inp in dict.fromkeys([(q, d), (kv, d), (wide, d), (d, wide)]):
            for more in (0, 32):
                for layout, m, n, k in [("x W^T", rows, out, inp + more), ("x w", rows, inp, out + more), ("dy^T x", out, inp, rows + more)]:
                    left, right = {"x W^T": (draw(m, k), draw(n, k).T), "x w": (draw(m, k), draw(k, n)), "dy^T x": (draw(k, m).T, draw(k, n))}[layout]
                    s = seconds(lambda: left @ right, sync)
                    width = left.element_size()
                    say(product=layout, m=m, n=n, k=k, seconds=s, flops_per_s=2 * m * n * k / s, bytes_per_s=width * ((m + n) * k + m * n) / s)
    for keys in (512, 2048):
        query, key, value = draw(8, heads, keys, hd), draw(8, kv_heads, keys, hd), draw(8, kv_heads, keys, hd)
        work = lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        s = seconds(work, sync)
        say(product="causal attention", keys=keys, seconds=s, flops_per_s=2 * 8 * heads * keys * keys * hd / s)


main()
