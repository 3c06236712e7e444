#!/usr/bin/env python3
"""Reads the log of the stand-in for CUDA (cuda.c): totals, and what lies between two downloads of a given size.

Usage: count.py LOG [BYTES]
Every token of a decoding step ends with a download of its sampled ids: 4 bytes a row, so BYTES is 256 for 64 rows.
"""

import sys
from collections import Counter
from statistics import median

NAMES = {"L": "launches", "U": "uploads", "D": "downloads", "Y": "waits of the host", "W": "waits of the device",
         "A": "allocations", "F": "frees", "C": "copies on the device", "K": "kernels loaded", "X": "refused calls",
         "O": "out of memory", "R": "races with collectives"}


def events(path):
    """(seconds, letter, details) of each line."""
    with open(path) as lines:
        for line in lines:
            seconds, letter, *details = line.rstrip("\n").split(" ", 2)
            yield float(seconds), letter, details[0] if details else ""


def kernels(launches):
    """Launches by the name of the kernel."""
    return Counter(details.split("@")[0] for _, letter, details in launches if letter == "L")


def main():
    log = list(events(sys.argv[1]))
    totals = Counter(letter for _, letter, _ in log)
    for letter, name in NAMES.items():
        print(f"{totals[letter]:9} {name}")
    peak = max((int(details.split()[2]) for _, letter, details in log if letter == "A"), default=0)
    print(f"{peak / 2**30:9.2f} GiB reserved at the highest")
    if len(sys.argv) < 3:
        for name, times in kernels(log).most_common():
            print(f"{times:9} {name}")
        return
    ends = [i for i, (_, letter, details) in enumerate(log) if letter == "D" and details == sys.argv[2]]
    between = [(a + 1, b + 1) for a, b in zip(ends, ends[1:])]
    # Steady: nothing is loaded any more, and nothing else is read in between.
    steady = [(a, b) for a, b in between if not any(letter == "K" for _, letter, _ in log[a:b])]
    steady = steady[len(steady) // 2:]
    print(f"\n{len(steady)} steady intervals between two downloads of {sys.argv[2]} bytes, per interval:")
    if not steady:
        return
    for letter in "LUDYWACO":
        counts = [sum(e[1] == letter for e in log[a:b]) for a, b in steady]
        print(f"{median(counts):9g} {NAMES[letter]} ({min(counts)} to {max(counts)})")
    times = [1e3 * (log[b - 1][0] - log[a - 1][0]) for a, b in steady]
    print(f"{median(times):9.2f} ms of the host ({min(times):.2f} at best)")
    a, b = steady[len(steady) // 2]
    print(f"{sum(int(e[2].split()[0]) for e in log[a:b] if e[1] == 'U'):9} bytes uploaded")
    for name, launches in kernels(log[a:b]).most_common():
        print(f"{launches:9} {name}")


if __name__ == "__main__":
    main()
