"""A submission, from the body of its request to its place in the queue."""

from __future__ import annotations

import secrets

from fastapi import Request

from service import fitting
from service.caps import in_time
from service.fitting import Checked
from service.problems import DatasetDamaged, InvalidRequest, NotFound, QueueFull, TooLarge
from service.requests import LIGHT
from service.settings import Settings
from service.threads import Threads
from worker import store
from worker.contract.data import DatasetData
from worker.contract.faults import Fault
from worker.contract.spec import ALGORITHM
from worker.datasets import MANIFEST
from worker.queue.delivery import delivery
from worker.store import Admission, Submission


async def checked(request: Request, body: bytes) -> Checked:
    """What a body asks for. What takes a few milliseconds is done at once, else in a thread. Raises a Problem."""
    checks: Threads = request.app.state.crew.checks
    settings: Settings = request.app.state.settings
    spec = fitting.parsed(body) if len(body) <= LIGHT else await checks.run(fitting.parsed, body, caller=request)
    spec = in_time(spec, settings)
    if not isinstance(spec.data, DatasetData):
        if fitting.is_light(spec, body):
            return fitting.of_own_data(spec, body, settings)
        return await checks.run(fitting.of_own_data, spec, body, settings, caller=request)
    try:
        manifest = await request.app.state.datasets.read(spec.data.dataset_id, MANIFEST, request)
    except NotFound:
        raise _unknown_dataset() from None
    except DatasetDamaged as problem:
        raise DatasetDamaged(problem.detail, errors=[Fault("/data/dataset_id", "damaged", problem.detail)]) from None
    return await checks.run(fitting.of_dataset, spec, manifest, settings, caller=request)


async def submit(request: Request, checked: Checked) -> str:
    """Put a job into the queue; its id. Raises a Problem if it cannot be accepted."""
    spec = checked.spec
    submission = Submission(
        id="job_" + secrets.token_hex(12),
        spec=checked.stored,
        shown=checked.shown,
        notes=checked.notes,
        names=checked.names,
        data=checked.data,
        fingerprint=checked.fingerprint,
        seconds=spec.limits.seconds,
        labels=spec.labels,
        request_id=request.state.request_id,
        traceparent=request.headers.get("traceparent", "")[:200],
        dataset=spec.data.dataset_id if isinstance(spec.data, DatasetData) else "",
        algorithm=ALGORITHM,
    )
    await _admit(request, submission)
    return submission.id


async def _admit(request: Request, submission: Submission) -> None:
    """Put it into the queue. Raises QueueFull, InvalidRequest, and TooLarge for one that would never have room."""
    settings: Settings = request.app.state.settings
    most, room = settings.max_queued, settings.queued_bytes
    if submission.size > room:
        raise TooLarge(
            f"The spec and its data take {submission.size} bytes, and those of all jobs may take {room} "
            "(GRADTUNE_MAX_QUEUED_MB); upload the table as a dataset."
        )
    admission = store.submit(submission, delivery(submission.id), max_queued=most, max_bytes=room)
    admitted = await store.arun(request.app.state.redis, admission)
    if admitted is Admission.FULL:
        detail = f"{most} jobs wait already (GRADTUNE_MAX_QUEUED); nothing was accepted, try again later."
        raise QueueFull(detail, headers={"Retry-After": "30"})
    if admitted is Admission.CROWDED:
        raise QueueFull(
            f"With this job the data and the specs of the jobs that wait or run would take more than {room} bytes "
            "(GRADTUNE_MAX_QUEUED_MB); nothing was accepted, try again later, or upload the table as a dataset.",
            headers={"Retry-After": "30"},
        )
    if admitted is Admission.UNKNOWN_DATASET:
        raise _unknown_dataset()


def _unknown_dataset() -> InvalidRequest:
    fault = Fault("/data/dataset_id", "unknown_dataset", "There is no dataset with this id; upload it first.")
    return InvalidRequest("The job spec does not fit its data.", errors=[fault])
