"""The demo: a real service, a real job on real data, shown from the request to the result."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import click

from service.client import Client, ClientError
from service.show import result_table

START_TIMEOUT = 60
TARGET = "progression"


def spec_document() -> dict[str, Any]:
    """The job: ridge regression on the diabetes data, one penalty for each feature, 5-fold cross-validation."""
    text = resources.files("service").joinpath("data/diabetes.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    features = [name for name in rows[0] if name != TARGET]
    return {
        "data": {
            "x": [[float(row[name]) for name in features] for row in rows],
            "y": [float(row[TARGET]) for row in rows],
            "features": features,
        },
        "training": {"kind": "ridge", "penalty": {"kind": "per_feature"}},
        "selection": {"kind": "k_fold", "folds": 5},
        "outer": {"kind": "auto", "starts": 4},
        "labels": {"demo": "diabetes"},
    }


def run_demo() -> None:
    """Start a service of its own, run the job, show it, and stop everything that was started."""
    with _service() as url:
        client = Client(url)
        spec = spec_document()
        data = spec["data"]
        click.echo(f"The service is at {url}.\n")
        click.echo(
            f"POST /v1/jobs: ridge regression on {len(data['y'])} patients, one penalty for each of "
            f"{len(data['features'])} features, tuned on 5-fold squared error from 4 starts"
        )
        job = client.post("/v1/jobs", json.dumps(spec).encode()).json
        click.echo(f"-> 202 {job['id']}\n")
        job = _follow(client, job)
        click.echo(f"\nGET /v1/jobs/{job['id']}/result\n")
        click.echo(result_table(client.get(job["links"]["result"]).json))
    click.echo(_CURL)


_CURL = """
The same by hand:
  gradtune serve &
  gradtune demo --spec > diabetes.json
  curl -s -X POST http://127.0.0.1:8000/v1/jobs -H 'Content-Type: application/json' --data-binary @diabetes.json
  curl -s http://127.0.0.1:8000/v1/jobs/JOB_ID -H 'Prefer: wait=30'
  curl -s http://127.0.0.1:8000/v1/jobs/JOB_ID/result"""


def _follow(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Show the descent as it comes in, until the job has ended."""
    seen, etag = 0, None
    click.echo(f"{'start':>5} {'iteration':>9} {'cross-validated error':>22} {'best':>12} {'gradient':>10}")
    while True:
        reply = client.wait(job["links"]["self"], etag, 30)
        job, etag = reply.json or job, reply.etag
        for step in client.get(f"{job['links']['steps']}?after={seen}").json["data"]:
            seen = step["sequence"]
            click.echo(
                f"{step['start'] + 1:>5} {step['iteration']:>9} {step['value']:>22.6f} {step['best_value']:>12.6f} "
                f"{step['gradient_norm']:>10.1e}"
            )
        if job["done"]:
            if job["error"]:
                raise ClientError(job["error"]["detail"])
            return job


@contextmanager
def _service() -> Iterator[str]:
    """A service with data of its own on a free port; the URL."""
    directory = Path(tempfile.mkdtemp(prefix="gradtune-demo-"))
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--data-dir", str(directory)]
    environment = {**os.environ, "GRADTUNE_LOG_LEVEL": os.environ.get("GRADTUNE_LOG_LEVEL", "error")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)  # noqa: S603
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()  # the line that says so, or nothing when the service could not start
        if "ready at " not in ready:
            raise ClientError("the service did not start; see its messages above")
        yield ready.partition("ready at ")[2].split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START_TIMEOUT)
        finally:
            process.kill()
            shutil.rmtree(directory, ignore_errors=True)
