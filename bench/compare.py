#!/usr/bin/env python3
"""Times the same training step here and in PyTorch + transformers, in turn, and prints the ratios of the medians.

    cargo build --release --bin bench
    pip install -r bench/requirements.txt
    python bench/compare.py --preset small [--rounds 3] [--raw FILE] [sizes, e.g. --image 672 --rollouts 16]
    python bench/compare.py --preset 3b --device cuda --prompts 8 --rollouts 8 --image 672 --response-tokens 512

Both sides load the same folder (random weights, written once by torch_step.py) and get the same sizes; what is not named below
goes to both. On a GPU the memory of the whole card is watched, so nothing else should run on it.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, threading

HERE = os.path.dirname(os.path.abspath(__file__))
KEYS = ["generate_s", "old_logprobs_s", "update_s", "total_s"]


def watch(stop, highest):
    """The highest memory in use on the first GPU, in GiB. Of the whole card: a container does not see the host's pids."""
    query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    while not stop.wait(0.2):
        used = subprocess.run(query, capture_output=True, text=True).stdout.strip()
        highest[0] = max(highest[0], float(used or 0) / 1024)


def run(command, cuda, must=True):
    """The step's JSON objects, and the highest memory in GiB: of the process on a CPU, of the GPU otherwise. Without objects if the
    program failed and need not succeed."""
    if not cuda and os.path.exists("/usr/bin/time"):
        command = ["/usr/bin/time", "-f", "max_rss_kb %M", *command]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stop, highest = threading.Event(), [0.0]
    watcher = threading.Thread(target=watch, args=(stop, highest)) if cuda else None
    if watcher:
        watcher.start()
    out, err = process.communicate()
    stop.set()
    if watcher:
        watcher.join()
    if process.returncode:
        said = f"{' '.join(command)}\n{err[-3000:]}"
        if must:
            sys.exit(said)
        print(said, file=sys.stderr)
        return [], highest[0]
    for line in err.splitlines():
        if line.startswith("max_rss_kb"):
            highest[0] = float(line.split()[1]) / 1024**2
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")], highest[0]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--preset", default="small", choices=["small", "3b", "7b"])
    p.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    p.add_argument("--rounds", type=int, default=3, help="each runs both programs once")
    p.add_argument("--steps", type=int, default=2, help="steps of each run; the first of a run on a GPU, which compiles, is left out")
    p.add_argument("--models", default=os.path.join(tempfile.gettempdir(), "bench-models"), help="where the folders are kept")
    p.add_argument("--bench", default=os.path.join(HERE, "..", "target", "release", "bench"))
    p.add_argument("--raw", help="append all lines to this file")
    p.add_argument("--only-ours", action="store_true")
    p.add_argument("--peer-micro-batch", type=int, nargs="*", default=[4, 2, 1],
                   help="responses that the peer takes at once: the next of these where one runs out of memory")
    a, sizes = p.parse_known_args()
    cuda = a.device == "cuda"
    model = os.path.join(a.models, a.preset)
    peer = [sys.executable, os.path.join(HERE, "torch_step.py"), "--model", model, "--init-preset", a.preset,
            "--device", a.device, "--dtype", "bfloat16" if cuda else "float32"]
    # As PyTorch trains a bf16 model with its own AdamW: weights, gradients and moments in bf16.
    backend = ["--backend", "cuda", "--dtype", "bf16", "--moments-dtype", "bf16", "--grads-dtype", "bf16",
               "--master-weights", "false"] if cuda else []
    if not os.path.exists(os.path.join(model, "config.json")):
        os.makedirs(model, exist_ok=True)
        run([*peer, "--steps", "1", "--prompts", "1", "--rollouts", "1", "--image", "56", "--response-tokens", "2"], cuda)
    micro = a.peer_micro_batch
    rows, memory = {"ours": [], "peer": []}, {"ours": 0.0, "peer": 0.0}
    for seed in range(a.rounds):
        same = ["--steps", str(a.steps + cuda), "--seed", str(seed), *sizes]
        sides = [("ours", [a.bench, "step", "--model", model, "--json", *backend, *same])]
        if not a.only_ours:
            sides.append(("peer", peer + same))
        for side, command in sides:
            ways = [command]
            if side == "peer" and "--micro-batch" not in sizes:
                ways = [command + ["--micro-batch", str(k)] for k in micro]
            for k, way in enumerate(ways):
                lines, peak = run(way, cuda, must=side == "ours")
                if lines:
                    micro = micro[k:]  # what did not fit once will not fit later
                    break
            if not lines:
                print(f"the peer failed in round {seed}; the rest of this table is ours alone\n")
                a.only_ours = True
                continue
            memory[side] = max(memory[side], peak)
            rows[side] += lines[1:] if cuda else lines
            if a.raw:
                with open(a.raw, "a") as file:
                    file.writelines(f"{side} {json.dumps(line)}\n" for line in lines)
    median = {side: {k: statistics.median(r[k] for r in rs) for k in KEYS} for side, rs in rows.items() if rs}
    print(f"preset {a.preset}, {a.device}, {' '.join(sizes) or 'default sizes'}; medians of {len(rows['ours'])} steps\n")
    print("| | " + " | ".join(k.removesuffix("_s") + " s" for k in KEYS) + " | peak GiB |")
    print("|---" * (len(KEYS) + 2) + "|")
    for side, m in median.items():
        print(f"| {side} | " + " | ".join(f"{m[k]:.3f}" for k in KEYS) + f" | {memory[side]:.2f} |")
    if "peer" in median:
        ratio = " | ".join(f"{median['ours'][k] / median['peer'][k]:.3f}" for k in KEYS)
        print(f"| ratio | {ratio} | {memory['ours'] / max(memory['peer'], 1e-9):.2f} |")


if __name__ == "__main__":
    main()
