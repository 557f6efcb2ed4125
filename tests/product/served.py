"""An API server with a real worker process on a store of its own, and a job on its way through them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.testing import assert_allclose

from service.settings import Settings
from tests.product.carry import Part, check_faults, new_rows, submitted
from tests.product.naive import predictors
from tests.servers import server
from tests.service.api import Api, eventually, serving
from worker.contract.faults import MOST, Fault
from worker.embedded import die_with_parent


@dataclass(frozen=True, slots=True)
class Served:
    """An API whose jobs are run."""

    api: Api

    def check(self, request: Part) -> None:
        """A request is refused as it is in this process, or its job succeeds and its model predicts."""
        faults = submitted(request)
        if isinstance(faults, list):
            self._check_refusal(request, faults)
            return
        view = self.api.post("/v1/jobs", params={"validate_only": True}, json=request)
        assert view.status_code == 200, view.text
        job = self.api.ended(self.api.created(request)["id"])
        assert job["status"] == "succeeded", job
        document = self.api.result(job["id"])
        assert [one["name"] for one in document["hyperparameters"]] == view.json()["names"]
        assert self.api.steps(job["id"])
        self._check_predictions(job["id"], document, offset="offset" in request["data"])

    def _check_refusal(self, request: Part, faults: list[Fault]) -> None:
        for validate in (True, False):
            reply = self.api.post("/v1/jobs", params={"validate_only": validate}, json=request)
            assert reply.status_code == 422, reply.text
            told = [Fault(one["pointer"], one["code"], one["detail"]) for one in reply.json()["errors"]]
            assert told == faults[:MOST]
            check_faults(request, told)

    def _check_predictions(self, job: str, document: Part, *, offset: bool) -> None:
        model: Any = document["model"]
        if model["kind"] == "quadratic":
            assert self.api.post(f"/v1/jobs/{job}/predictions", json={"x": [[1.0]]}).status_code == 409
            return
        lines = model["classes"][0] if model["kind"] == "multinomial" else model
        names = model.get("features") or [
            *(one["feature"] for one in lines["coefficients"]), *(one["feature"] for one in model.get("splines", ())),
        ]  # fmt: skip
        asked = new_rows(names, offset=offset)
        reply = self.api.post(f"/v1/jobs/{job}/predictions", json={**asked, "features": names})
        assert reply.status_code == 200, reply.text
        rows = [dict(zip(names, row, strict=True)) for row in asked["x"]]
        eta, size = predictors(model, rows, asked.get("offset", [0.0] * len(rows)))
        given = reply.json()["predictor"]
        columns = np.column_stack(list(given.values()) if isinstance(given, dict) else [given])
        assert_allclose(columns, eta, rtol=1e-9, atol=1e-12 + 1e-11 * size)


@contextmanager
def serving_jobs(directory: Path, program: Sequence[str] = ("-m", "worker.main")) -> Iterator[Served]:
    """A store, a worker and an API, whose data are in a directory; all are stopped at the end."""
    with server(directory / "store") as store:
        settings = Settings(redis_url=store.url, data_dir=directory)
        process = subprocess.Popen(
            [sys.executable, *program],
            env={**os.environ, **settings.environment()},
            preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - should the tests be killed
        )
        try:
            with serving(settings) as api:
                eventually(lambda: api.get("/readyz").status_code == 200)
                yield Served(api)
        finally:
            process.terminate()
            process.wait(30)
