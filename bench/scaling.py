#!/usr/bin/env python3
"""Seconds of a training step on many GPUs, by arithmetic: the table of docs/performance.md under "A model of many GPUs".

Nothing is measured here. Operations, bytes and messages are counted from the sizes of the model and of the step; the
speeds that they are divided by are stated below, each with where it is from. `python3 bench/scaling.py` prints the table,
`--help` the sizes of the step that can be changed.
"""

import argparse
import math
import random
from dataclasses import dataclass

# --- the machine: H800 SXM, 8 in a node ------------------------------------------------------------------------------
TENSOR = 989e12      # dense bf16 operations a second (NVIDIA's data sheet)
REACHED = 0.35       # of which training reaches so much: torchtitan reports 33 to 39% on H100
SCORED = 0.40        # and a forward pass alone (assumed)
HBM = 3.35e12 * 0.8  # bytes a second; 80% of the data sheet is read by a good kernel (assumed)
NVLINK = 160e9       # bytes a second each way in a node, of 200 (H800's NVLink is half of H100's; 80% is assumed)
NETWORK = 45e9       # bytes a second and GPU between nodes, of 50 (400 Gbit/s a GPU; 90% is assumed)
LAUNCH = 5e-6        # seconds of the host for a launch (assumed)
LATENCY = {"node": 15e-6, "network": 30e-6}  # seconds of a small collective (assumed)
PER_NODE = 8

# --- the models: hidden, layers, heads, KV heads, MLP; tower depth, width, MLP; vocabulary, tied ----------------------
MODELS = {
    "3b": (2048, 36, 16, 2, 11008, 32, 1280, 3420, 151936, True),
    "7b": (3584, 28, 28, 4, 18944, 32, 1280, 3420, 152064, False),
    "32b": (5120, 64, 40, 8, 27648, 32, 1280, 3456, 152064, False),
}
LAUNCHES_LAYER = 10  # of a decoded token (docs/architecture.md)


@dataclass
class Sizes:
    """Parameters and widths of a model."""
    d: int
    layers: int
    q: int
    kv: int
    kv_heads: int
    layer: int
    decoder: int
    head: int
    tower: int
    total: int
    tower_width: int


def sizes(name):
    d, layers, heads, kv_heads, m, depth, w, wm, vocab, tied = MODELS[name]
    hd = d // heads
    q, kv = heads * hd, kv_heads * hd
    matrices = d * (2 * q + 2 * kv) + 3 * d * m
    layer = matrices + q + 2 * kv + 2 * d
    block = 4 * w * w + 4 * w + 2 * w + 3 * w * wm + 2 * wm + w
    wide = 4 * w
    tower = 1176 * w + depth * block + w + (wide * wide + wide) + (wide * d + d)
    decoder, table = layers * layer + d, vocab * d
    total = decoder + tower + table * (1 if tied else 2)
    return Sizes(d, layers, q, kv, kv_heads, matrices, decoder, table, tower, total, w)


@dataclass
class Step:
    """A step of training."""
    prompts: int
    responses: int
    images: int    # image tokens of a prompt
    prompt: int    # tokens of a prompt, those of its picture included
    response: int  # tokens of a response, on average
    longest: int
    rows: int      # decoded at the same time on a copy of the model
    budget: int    # packed tokens of a pass


def forward(s, step, responses, with_head=True):
    """Operations of one forward pass of the decoder over a group whose prompt is computed once."""
    p, r = step.prompt, step.response
    tokens = p + responses * r
    pairs = p * p / 2 + responses * (r * p + r * r / 2)
    head = 2 * responses * r * s.head if with_head else 0
    return s.layers * (2 * tokens * s.layer + 4 * pairs * s.q) + head


def tower(s, step):
    """Operations of one forward pass of the tower over a prompt's picture: four blocks attend over all of it. The merger
    is taken to work on patches, though it works on a quarter of them: 7% too much."""
    patches = 4 * step.images
    return 2 * patches * s.tower + 4 * 4 * patches * patches * s.tower_width


def ring(size, bytes_, speed, latency):
    """Seconds of a reduce-scatter or an all-gather of `bytes_` over `size` ranks; an all-reduce is two of them."""
    return 0.0 if size == 1 else (size - 1) / size * bytes_ / speed + latency


def exchange(copies, tensor, bytes_):
    """The same over the copies of the model, whose ranks of a node come first; in two levels where there are nodes."""
    here = min(copies, PER_NODE // tensor)
    inside = ring(here, bytes_, NVLINK, LATENCY["node"])
    nodes = copies // here
    # All ranks of a node talk at once, each about its own part.
    return inside + ring(nodes, bytes_ / here, NETWORK, LATENCY["network"])


def all_reduce(size, bytes_):
    """Of a tensor group, which lies in one node."""
    return 2 * ring(size, bytes_, NVLINK, LATENCY["node"] / 2) if size > 1 else 0.0


def lengths(step, count, seed):
    """Lengths of responses: log-normal about the mean, cut at the longest."""
    draw = random.Random(seed)
    sigma = 0.7
    mu = math.log(step.response) - sigma * sigma / 2
    return [max(1, min(step.longest, round(draw.lognormvariate(mu, sigma)))) for _ in range(count)]


def token(s, tensor, rows, read):
    """Seconds of one decoded token of `rows` rows that read `read` tokens of keys and values together."""
    weights = 2 * ((s.layers * s.layer + s.head) / tensor)
    kv = 2 * 2 * s.layers * s.kv / min(tensor, s.kv_heads) * read
    messages = (2 * s.layers + 1) * all_reduce(tensor, 2 * rows * s.d)
    return (weights + kv) / HBM + LAUNCH * (LAUNCHES_LAYER * s.layers + 4) + messages


def decoding(s, step, tensor, groups, seed):
    """Seconds until all responses of `groups` prompts have ended: groups enter where rows are free."""
    waiting = [lengths(step, step.responses, seed + i) for i in range(groups)]
    running, seconds = [], 0.0
    while waiting or running:
        while waiting and sum(len(g[0]) for g in running) + step.responses <= step.rows:
            running.append([waiting.pop(), 0])
        rows = sum(len(g[0]) for g in running)
        # Until the next response ends: the keys of a prompt are read once for its group.
        length = min(min(g[0]) - g[1] for g in running)
        read = sum(step.prompt + len(g[0]) * (g[1] + length / 2) for g in running)
        seconds += length * token(s, tensor, rows, read)
        for g in running:
            g[1] += length
            g[0] = [left for left in g[0] if left > g[1]]
        running = [g for g in running if g[0]]
    return seconds


def step_seconds(name, step, gpus, tensor):
    """Seconds of the phases of a step on `gpus` GPUs, each copy of the model on `tensor` of them."""
    s = sizes(name)
    copies = gpus // tensor
    groups = math.ceil(step.prompts / copies)
    tokens = groups * (step.prompt + step.responses * step.response)
    passes = math.ceil(tokens / step.budget)
    own = (s.total - s.tower) / tensor + s.tower
    group = forward(s, step, step.responses)
    # Forward, forward again and backward: 1 + 1 + 2, with the tower. Messages: two a layer in each of a forward, a
    # forward again (where one of them is not needed) and a backward; images are dealt out.
    rate = TENSOR * REACHED * tensor
    message = all_reduce(tensor, 2 * step.budget * s.d)
    update = groups * 4 * (group + tower(s, step)) / rate + passes * 5 * s.layers * message
    scoring = groups * group / (TENSOR * SCORED * tensor) + passes * 2 * s.layers * message
    prefill = groups * (forward(s, step, 0, False) + tower(s, step)) / (TENSOR * SCORED * tensor)
    rollout = prefill + decoding(s, step, tensor, groups, 7 * gpus)
    # ZeRO-2: gradients in f32 are reduced in every pass inside a node and once a step between nodes.
    here = min(copies, PER_NODE // tensor)
    reduce = passes * ring(here, 4 * own, NVLINK, LATENCY["node"])
    reduce += ring(copies // here, 4 * own / here, NETWORK, LATENCY["network"])
    # The optimizer reads and writes gradient, two moments, f32 and bf16 weights of its part; weights are gathered.
    optimizer = own / copies * (4 + 2 * 12 + 2) / HBM + exchange(copies, tensor, 2 * own)
    return {"rollout": rollout, "log-probs": scoring, "update": update, "gradients": reduce, "optimizer": optimizer}


LAYOUTS = [("3b", 8, 1), ("3b", 32, 1), ("7b", 8, 1), ("7b", 32, 1), ("32b", 8, 8), ("32b", 32, 4), ("32b", 32, 8)]


def table(step):
    phases = ["rollout", "log-probs", "update", "gradients", "optimizer"]
    lines = [
        "| model | GPUs | ranks | " + " | ".join(f"{phase} s" for phase in phases)
        + " | step s | responses/s | responses/s a GPU |",
        "|" + "---|" * (len(phases) + 6),
    ]
    for name, gpus, tensor in LAYOUTS:
        seconds = step_seconds(name, step, gpus, tensor)
        whole = sum(seconds.values())
        rate = step.prompts * step.responses / whole
        cells = [name, str(gpus), f"{gpus // tensor} x {tensor}", *(f"{seconds[phase]:.1f}" for phase in phases)]
        lines.append("| " + " | ".join([*cells, f"**{whole:.0f}**", f"{rate:.1f}", f"{rate / gpus:.2f}"]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for option, default, meaning in [
        ("prompts", 512, "prompts a step"),
        ("responses", 8, "responses a prompt"),
        ("images", 1200, "image tokens of a prompt"),
        ("prompt", 1500, "tokens of a prompt"),
        ("response", 700, "tokens of a response, on average"),
        ("longest", 2048, "tokens of the longest response"),
        ("rows", 256, "responses decoded at the same time on a copy of the model"),
        ("budget", 16384, "packed tokens of a pass"),
    ]:
        parser.add_argument(f"--{option}", type=int, default=default, metavar="N", help=f"{meaning} ({default})")
    print(table(Step(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
