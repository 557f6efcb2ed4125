"""What must hold, whatever was broken. Pure functions of what the callers saw; each broken promise is one sentence."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.ledger import Record, Sighting
from tests.chaos.outcomes import Reference, canonical, numbers

TERMINAL = {"succeeded", "failed", "cancelled", "expired"}
MOVES = {  # as documented for callers, not as implemented
    "queued": {"running", "cancelling", "cancelled", "expired"},
    "running": {"queued", "cancelling", "succeeded", "failed"},
    "cancelling": {"cancelled", "succeeded", "failed"},
}


@dataclass(frozen=True, slots=True)
class Breach:
    """A broken promise: its kind (a column of the report) and what happened."""

    kind: str
    sentence: str


def reachable(status: str) -> set[str]:
    """States that a caller may see after `status`: between two looks a job may have moved several times."""
    found, new = {status}, {status}
    while new:
        new = {target for state in new for target in MOVES.get(state, set())} - found
        found |= new
    return found


def check(
    records: Iterable[Record], listed: Mapping[str, list[str]], references: Mapping[str, Reference]
) -> Iterator[Breach]:
    """All broken promises. `listed`: the ids of the jobs that the API lists under each label."""
    for record in records:
        yield from _existence(record, listed.get(record.label, []))
        if record.job_id is not None:
            yield from _course(record)
            yield from _end(record, references[record.template])
            yield from _steps(record, references[record.template])


def _existence(record: Record, ids: list[str]) -> Iterator[Breach]:
    if len(ids) > 1:
        yield Breach("duplicated", f"one POST ({record.label}) made the jobs {', '.join(ids)}")
    if record.acknowledged and record.job_id not in ids:
        yield Breach("lost", f"job {record.job_id} was acknowledged and is not listed")
    if record.job_id is not None and record.ended is None:
        last = record.sightings[-1] if record.sightings else None
        yield Breach("lost", f"job {record.job_id} ({record.template}) has not ended; last seen: {last}")


def _course(record: Record) -> Iterator[Breach]:
    """Legal moves and growing attempts for each observer; nothing changes after the end for anybody."""
    by_observer: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in record.sightings:
        by_observer[sighting.observer].append(sighting)
        if sighting.done != (sighting.status in TERMINAL):
            yield Breach("illegal move", f"job {record.job_id}: done is {sighting.done} and status {sighting.status}")
    for sightings in by_observer.values():
        for before, after in pairwise(sightings):
            if after.status not in reachable(before.status):
                yield Breach("illegal move", f"job {record.job_id}: {before.status} -> {after.status}")
            if after.attempt < before.attempt:
                yield Breach("illegal move", f"job {record.job_id}: attempt {before.attempt} -> {after.attempt}")
            for what in ("iteration", "evaluations"):
                if getattr(after, what) < getattr(before, what):
                    sentence = f"job {record.job_id}: {what} {getattr(before, what)} -> {getattr(after, what)}"
                    yield Breach("progress lost", sentence)
    if record.ended is not None:
        yield from _after_end(record, record.ended)


def _after_end(record: Record, end: Sighting) -> Iterator[Breach]:
    def face(sighting: Sighting) -> tuple[object, ...]:
        return (sighting.status, sighting.attempt, sighting.evaluations, sighting.etag, sighting.stop_reason)

    for sighting in record.sightings:
        if (sighting.done or sighting.sent > end.received) and face(sighting) != face(end):
            yield Breach("changed after its end", f"job {record.job_id}: {face(end)} -> {face(sighting)}")
    if len(record.results) > 1:
        yield Breach(
            "changed after its end", f"job {record.job_id} showed the results {sorted(map(str, record.results))}"
        )


def _end(record: Record, reference: Reference) -> Iterator[Breach]:
    if record.ended is None:
        return
    status = record.ended.status
    if status == reference.status:
        if record.result is None:
            yield Breach("lost", f"job {record.job_id} is {status} and has no result")
        elif numbers(record.result) != reference.result:
            yield Breach(
                "not bit-identical", f"job {record.job_id} ({record.template}): {_difference(record, reference)}"
            )
        if record.ended.stop_reason != reference.stop_reason:
            yield Breach("not bit-identical", f"job {record.job_id}: stop_reason {record.ended.stop_reason}")
    elif status != "cancelled" or not record.cancelled:
        yield Breach(
            "wrong end", f"job {record.job_id} ({record.template}) is {status}, undisturbed: {reference.status}"
        )
    elif record.result is not None and not record.result["partial"]:
        yield Breach("wrong end", f"job {record.job_id} is cancelled and its result is not marked as partial")


def _difference(record: Record, reference: Reference) -> str:
    ours, theirs = numbers(record.result or {}), reference.result
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return f"...{ours[max(place - 60, 0) : place + 40]}... instead of ...{theirs[max(place - 60, 0) : place + 40]}..."


def _steps(record: Record, reference: Reference) -> Iterator[Breach]:
    """Numbered 1, 2, ... and equal to the undisturbed ones; a cancelled job has the first of them."""
    if record.ended is None or record.steps is None:
        return
    steps = record.steps
    if [step["sequence"] for step in steps] != list(range(1, len(steps) + 1)):
        yield Breach("steps", f"job {record.job_id}: the sequence numbers have a gap or a repetition")
    for before, after in pairwise(steps):
        if (after["start"], after["iteration"]) < (before["start"], before["iteration"]):
            yield Breach("steps", f"job {record.job_id}: step {after['sequence']} goes back")
    expected = reference.steps if record.ended.status == reference.status else reference.steps[: len(steps)]
    if [canonical(step) for step in steps] != expected:
        yield Breach("steps", f"job {record.job_id} ({record.template}): not the steps of the undisturbed run")
