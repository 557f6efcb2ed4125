"""A judge that cannot convict proves nothing: each broken promise, made up, is found, and only that one."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.invariants import check, reachable
from tests.chaos.ledger import Record, Sighting
from tests.chaos.outcomes import Reference, canonical, numbers

STEPS = [
    {"sequence": 1, "start": 0, "iteration": 1, "value": 2.0},
    {"sequence": 2, "start": 0, "iteration": 2, "value": 1.0},
    {"sequence": 3, "start": 1, "iteration": 1, "value": 1.5},
]
RESULT: dict[str, Any] = {"job_id": "job_1", "partial": False, "timing": {"fit_s": 1.0}, "selection": {"value": 0.1}}
REFERENCE = Reference("succeeded", "converged", numbers(RESULT), [canonical(step) for step in STEPS], 9, 1.0)
END = Sighting(3.0, 3.1, "caller 1", "succeeded", True, 2, 7, 9, 'W/"9"', "converged")


def job() -> Record:
    """A job as it should be: interrupted once, resumed, ended, read again by another."""
    record = Record("label", "template", acknowledged=True, job_id="job_1")
    record.sightings = [
        Sighting(0.0, 0.1, "caller 1", "queued", False, 0, 0, 0, 'W/"1"', None),
        Sighting(1.0, 1.1, "caller 1", "running", False, 1, 3, 4, 'W/"3"', None),
        Sighting(2.0, 2.1, "caller 1", "queued", False, 1, 3, 4, 'W/"5"', None),
        END,
        replace(END, sent=5.0, received=5.1, observer="reader 1"),
    ]
    record.ended = END
    record.result, record.steps = deepcopy(RESULT), deepcopy(STEPS)
    record.results = {(200, '"job_1.9"', "digest")}
    return record


def kinds(record: Record, listed: list[str] | None = None) -> set[str]:
    ids = ["job_1"] if listed is None else listed
    return {breach.kind for breach in check([record], {"label": ids}, {"template": REFERENCE})}


def cancelled() -> Record:
    record = job()
    end = replace(END, status="cancelled", stop_reason=None)
    record.sightings, record.ended, record.cancelled = [*record.sightings[:3], end], end, True
    record.steps, record.result = record.steps[:2], {**RESULT, "partial": True}
    return record


def test_nothing_is_found_in_a_job_as_it_should_be() -> None:
    assert kinds(job()) == set()
    assert kinds(cancelled()) == set()


def test_a_post_without_a_reply_may_have_made_no_job() -> None:
    assert kinds(Record("label", "template"), []) == set()


def test_lost() -> None:
    assert kinds(job(), []) == {"lost"}
    waiting = job()
    waiting.sightings, waiting.ended = waiting.sightings[:3], None
    assert kinds(waiting) == {"lost"}
    empty = job()
    empty.result = None
    assert kinds(empty) == {"lost"}


def test_duplicated() -> None:
    assert kinds(job(), ["job_1", "job_2"]) == {"duplicated"}


@pytest.mark.parametrize(
    "later",
    [
        replace(END, sent=6.0, received=6.1, observer="reader 2", status="running", done=False),
        replace(END, sent=6.0, received=6.1, observer="reader 2", etag='W/"10"'),
        replace(END, sent=6.0, received=6.1, observer="reader 2", attempt=3),
        replace(END, sent=6.0, received=6.1, observer="reader 2", stop_reason="stalled"),
    ],
)
def test_changed_after_its_end(later: Sighting) -> None:
    record = job()
    record.sightings.append(later)
    assert "changed after its end" in kinds(record)


def test_two_results() -> None:
    record = job()
    record.results.add((200, '"job_1.9"', "another digest"))
    assert kinds(record) == {"changed after its end"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"attempt": 0}, "illegal move"),
        ({"iteration": 2}, "progress lost"),
        ({"evaluations": 3}, "progress lost"),
        ({"done": True}, "illegal move"),
    ],
)
def test_going_back(change: dict[str, Any], kind: str) -> None:
    record = job()
    record.sightings[2] = replace(record.sightings[2], **change)
    assert kind in kinds(record)


def test_illegal_move() -> None:
    record = job()
    record.sightings[1] = replace(record.sightings[1], status="cancelling")  # and then queued
    assert kinds(record) == {"illegal move"}
    assert reachable("queued") == {"queued", "running", "cancelling", "succeeded", "failed", "cancelled", "expired"}
    assert reachable("cancelling") == {"cancelling", "cancelled", "succeeded", "failed"}
    assert reachable("succeeded") == {"succeeded"}


def test_the_last_bit_counts() -> None:
    record = job()
    record.result["selection"]["value"] = 0.1 + 2**-56
    assert kinds(record) == {"not bit-identical"}
    record.result["selection"]["value"] = 0.1
    record.result["timing"]["fit_s"] = 2.0
    assert kinds(record) == set()


def test_steps() -> None:
    for broken in (
        STEPS[:2],
        [*STEPS, STEPS[2]],
        [STEPS[0], STEPS[2]],
        [STEPS[0], STEPS[1], {**STEPS[2], "value": 1.0}],
    ):
        record = job()
        record.steps = deepcopy(broken)
        assert kinds(record) == {"steps"}
    record = cancelled()
    record.steps = [STEPS[1]]
    assert kinds(record) == {"steps"}


def test_wrong_end() -> None:
    record = cancelled()
    record.cancelled = False
    assert kinds(record) == {"wrong end"}
    record = cancelled()
    record.result["partial"] = False
    assert kinds(record) == {"wrong end"}
