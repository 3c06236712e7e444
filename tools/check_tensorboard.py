#!/usr/bin/env python3
"""Reads the event files of a run with TensorBoard's own reader and compares them with metrics.jsonl.

    python3 -m venv venv && venv/bin/pip install -r tools/requirements-tensorboard.txt
    venv/bin/python tools/check_tensorboard.py RUN

Every number of metrics.jsonl must be there under its name and step, no step twice; histograms of advantages (and of
visual focus, where it was measured) with as many numbers as tokens; focus maps as PNG files of the size that is said.
"""

import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def single(value):
    """What is left of a number in 32 bits."""
    return struct.unpack("f", struct.pack("f", value))[0]


def check(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "histograms": 0})
    events.Reload()
    tags = events.Tags()
    expected = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for key, value in record.items():
            if key != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                expected.setdefault(key, []).append((record["step"], single(value)))
    assert expected, "metrics.jsonl has no numbers"
    assert set(tags["scalars"]) == set(expected), set(tags["scalars"]) ^ set(expected)
    for key, values in expected.items():
        found = [(event.step, event.value) for event in events.Scalars(key)]
        assert found == values, f"{key}: {found} is not {values}"

    for tag in tags["histograms"]:
        for event in events.Histograms(tag):
            value = event.histogram_value
            assert len(value.bucket) == len(value.bucket_limit) > 0, tag
            assert sum(value.bucket) == value.num > 0, tag
            assert value.min <= value.max == value.bucket_limit[-1], tag
    assert "tokens/advantage" in tags["histograms"], tags["histograms"]
    rollouts = {int(path.stem.split("_")[1]): path for path in (run / "rollouts").glob("step_*.jsonl")}
    for event in events.Histograms("tokens/advantage"):
        if event.step in rollouts:
            tokens = sum(json.loads(line)["tokens"] for line in rollouts[event.step].read_text().splitlines())
            assert event.histogram_value.num == tokens, (event.step, event.histogram_value.num, tokens)

    for event in [event for tag in tags["images"] for event in events.Images(tag)]:
        data = event.encoded_image_string
        assert data.startswith(b"\x89PNG"), event.step
        assert struct.unpack(">II", data[16:24]) == (event.width, event.height), event.step
    maps = [event.step for event in events.Images("focus_map")] if "focus_map" in tags["images"] else []
    numbers = sum(map(len, expected.values()))
    print(f"{run}: {len(expected)} scalars, {numbers} numbers, {len(tags['histograms'])} histograms, focus maps at {maps}")
    return maps


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for name in sys.argv[1:]:
        check(Path(name))
