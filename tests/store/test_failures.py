"""The n-th command fails, before or after it took effect; the caller tries again; the outcome is as without failure."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import redis

from worker import store
from worker.queue import delivery
from worker.store import Status, keys
from worker.store.driver import Batch

T = TypeVar("T")
Operation = Callable[[], store.Operation[Any]]
VOLATILE = {b"nonce", b"version", b"created_at", b"started_at", b"finished_at", b"claimed_at", b"cancelled_at"}


class InterruptionError(Exception):
    pass


def attempt(client: redis.Redis, operation: store.Operation[T], fail_at: int, *, after: bool, resend: bool) -> T:
    """Drive an operation; its batch `fail_at` fails, and is sent again or given up."""
    number = 0
    replies: list[Any] | None = None
    while True:
        try:
            batch = next(operation) if replies is None else operation.send(replies)
        except StopIteration as stop:
            return stop.value
        number += 1
        if number == fail_at:
            if after:
                send(client, batch)
            if not resend:
                raise InterruptionError
        replies = send(client, batch)


def send(client: redis.Redis, batch: Batch) -> list[Any]:
    def one() -> store.Operation[list[Any]]:
        return (yield batch)

    return store.run(client, one())


def snapshot(client: redis.Redis) -> dict[str, Any]:
    hashes = {}
    for key in client.keys(f"{keys.JOB}*"):
        if client.type(key) == b"hash":
            hashes[key] = {name: value for name, value in client.hgetall(key).items() if name not in VOLATILE}
    return {
        "hashes": hashes,
        "data": {key: client.get(key) for key in client.keys(f"{keys.JOB}*") if client.type(key) == b"string"},
        "steps": {key: client.lrange(key, 0, -1) for key in client.keys(f"{keys.JOB}*:steps")},
        "queue": client.lrange(keys.QUEUE_LIST, 0, -1),
        "active": client.zrange(keys.ACTIVE, 0, -1),
        "jobs": client.zrange(keys.JOBS, 0, -1),
        "rq": client.keys("rq:job:*"),
    }


def submit() -> store.Operation[Any]:
    return store.submit(store.Submission("j", b"{}", b"data", "f", 9.0), delivery("j"))


def claim(owner: str = "o") -> store.Operation[Any]:
    return store.claim("j", owner, lease=1000.0)


def beat(done: int = 1) -> store.Operation[Any]:
    return store.beat(
        "j", 1, progress=b"p", elapsed=1.0, checkpoint=b"c%d" % done, steps=[b"s%d" % done], steps_before=done - 1
    )


def finish() -> store.Operation[Any]:
    return store.finish("j", 1, Status.SUCCEEDED, result=b"r", steps=[b"s2"], steps_before=1)


CASES: dict[str, tuple[list[Operation], Operation]] = {
    "submit": ([], submit),
    "claim": ([submit], claim),
    "claim of a job of another version": (
        [submit, claim, beat, lambda: store.release("j", "o")],
        lambda: store.claim("j", "new", lease=1000.0, algorithm=store.Algorithm("2", lambda _: "f2")),
    ),
    "beat": ([submit, claim, beat], lambda: beat(2)),
    "finish": ([submit, claim, beat], finish),
    "cancel a queued job": ([submit], lambda: store.cancel("j")),
    "cancel a running job": ([submit, claim, beat], lambda: store.cancel("j")),
    "release": ([submit, claim, beat], lambda: store.release("j", "o", delivery("j", at_front=True))),
    "redeliver": ([submit, claim, beat], lambda: store.redeliver("j", delivery("j", at_front=True))),
    "delete": ([submit, claim, beat, finish], lambda: store.delete("j")),
    "list": ([submit, claim], lambda: store.jobs(status=Status.RUNNING)),
    "read": ([submit], lambda: store.job("j")),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("resend", [False, True], ids=["operation", "batch"])
def test_a_retry_converges(client: redis.Redis, case: str, after: bool, resend: bool) -> None:
    before, operation = CASES[case]

    def prepare() -> None:
        client.flushall()
        for step in before:
            store.run(client, step())
        if case == "redeliver":
            client.zadd(keys.ACTIVE, {"j": 0})

    prepare()
    answer = store.run(client, operation())
    wanted = snapshot(client)
    for fail_at in (1, 2, 3):
        prepare()
        try:
            again = attempt(client, operation(), fail_at, after=after, resend=resend)
        except InterruptionError:
            again = store.run(client, operation())
        assert snapshot(client) == wanted
        if resend and case not in {"delete", "release", "redeliver", "read", "list"}:
            assert again == answer or case.startswith("claim")
