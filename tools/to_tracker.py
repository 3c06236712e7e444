#!/usr/bin/env python3
"""Gives a run to an experiment tracker: its configuration, its metrics step by step, its record.

    python3 tools/to_tracker.py wandb RUN --project NAME     # pip install wandb; WANDB_MODE=offline writes ./wandb
    python3 tools/to_tracker.py mlflow RUN --project NAME    # pip install mlflow; MLFLOW_TRACKING_URI says where
    python3 tools/to_tracker.py swanlab RUN --project NAME   # pip install swanlab; SWANLAB_MODE=offline writes ./swanlog

It reads config.toml, metrics.jsonl and run.json and needs nothing else of this project.
"""

import argparse
import json
import math
import tomllib
from pathlib import Path


def flat(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read(run):
    config = dict(flat(tomllib.loads((run / "config.toml").read_text())))
    record = json.loads((run / "run.json").read_text()) if (run / "run.json").exists() else {}
    steps = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        step = metrics.pop("step")
        numbers = {k: v for k, v in metrics.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        steps.append((step, numbers))
    return config, record, steps


def to_wandb(name, project, config, record, steps):
    import wandb

    with wandb.init(project=project, name=name, config={**config, "run": record}) as run:
        for step, numbers in steps:
            run.log(numbers, step=step)


def to_mlflow(name, project, config, record, steps):
    import mlflow

    mlflow.set_experiment(project)
    with mlflow.start_run(run_name=name):
        # A parameter has at most 6,000 characters.
        mlflow.log_params({key: str(value)[:6000] for key, value in config.items()})
        mlflow.set_tags({f"run.{key}": str(value) for key, value in record.items()})
        for step, numbers in steps:
            # Not every store takes `reward` beside `reward/overlong`, nor an @.
            names = {key: key.replace("/", ".").replace("@", "_at_") for key in numbers}
            mlflow.log_metrics({names[key]: value for key, value in numbers.items()}, step=step)


def to_swanlab(name, project, config, record, steps):
    import swanlab

    swanlab.init(project=project, experiment_name=name, config={**config, "run": record})
    for step, numbers in steps:
        swanlab.log(numbers, step=step)
    swanlab.finish()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracker", choices=["wandb", "mlflow", "swanlab"])
    parser.add_argument("run", type=Path)
    parser.add_argument("--project", required=True)
    args = parser.parse_args()
    target = {"wandb": to_wandb, "mlflow": to_mlflow, "swanlab": to_swanlab}[args.tracker]
    target(args.run.resolve().name, args.project, *read(args.run))
