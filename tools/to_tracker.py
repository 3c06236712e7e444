#!/usr/bin/env python3
"""Gives a run to an experiment tracker: its configuration, its metrics step by step, its record.

    python3 tools/to_tracker.py wandb RUN --project NAME     # pip install wandb; WANDB_MODE=offline writes ./wandb
    python3 tools/to_tracker.py mlflow RUN --project NAME    # pip install mlflow; MLFLOW_TRACKING_URI says where

It reads config.toml, metrics.jsonl and run.json and needs nothing else of this project. SwanLab reads the event files
itself (docs/run-folder.md).
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
            # MLflow's names have no characters but these.
            mlflow.log_metrics({key.replace("@", "_at_"): value for key, value in numbers.items()}, step=step)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracker", choices=["wandb", "mlflow"])
    parser.add_argument("run", type=Path)
    parser.add_argument("--project", required=True)
    args = parser.parse_args()
    target = {"wandb": to_wandb, "mlflow": to_mlflow}[args.tracker]
    target(args.run.resolve().name, args.project, *read(args.run))
