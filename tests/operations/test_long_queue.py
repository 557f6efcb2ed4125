"""Thousands of jobs wait: what everybody does all the time costs as much as with a few.

Costs are counted in commands that the server executes, those inside scripts included; times are printed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
import redis

from tests.operations.deployments import commands
from tests.operations.invariants import check
from worker import store
from worker.queue import delivery, reconcile
from worker.store import Admission, Operation, Status, Submission, keys
from worker.store.driver import Argument
from worker.store.operations import QUEUE_CHECK_PERIOD
from worker.store.queries import LAST_POSITION

FEW, SOME, MANY = 50, 2_000, 5_000
CHECKS = 50  # looks at waiting jobs a second, all together


def name(number: int) -> str:
    return f"job_{number:024x}"


def submission(number: int) -> Operation[Admission]:
    return store.submit(
        Submission(name(number), b'{"any": "spec"}', b"data", "f", 60.0), delivery(name(number)), max_queued=100_000
    )


def fill(client: redis.Redis, count: int) -> None:
    """Submit many jobs, hundreds in each round trip, each with the commands of the first but for its id."""
    ((*words,),) = next(submission(0))
    for begin in range(0, count, 500):
        with client.pipeline(transaction=False) as pipeline:
            for number in range(begin, min(begin + 500, count)):
                pipeline.execute_command(*(of_another(word, number) for word in words))
            assert set(pipeline.execute()) == {b"created"}


def of_another(word: Argument, number: int) -> Argument:
    if isinstance(word, str):
        return word.replace(name(0), name(number)) if len(word) < 100 else word
    return word.replace(name(0).encode(), name(number).encode()) if isinstance(word, bytes) else word


def passed(client: redis.Redis, seconds: float) -> None:
    """As if time had passed: everything that somebody has to look after is due earlier."""
    script = """
    for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZINCRBY', KEYS[1], -ARGV[1], id) end"""
    client.eval(script, 1, keys.ACTIVE, seconds)


def lost(client: redis.Redis, count: int) -> None:
    """The first jobs are claimed by workers that die."""
    for _ in range(count):
        job_id = client.lmove(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST).decode()
        assert store.run(client, store.claim(job_id, f"dead {job_id}", lease=0.0)) is not None


def routine(client: redis.Redis) -> dict[str, Counter[str]]:
    """What each thing that is done all the time makes the server do."""
    middle, last = name(FEW // 2), client.lindex(keys.QUEUE_LIST, -1).decode()
    acts: dict[str, Callable[[], object]] = {
        "read": lambda: store.run(client, store.job(last)),
        "list": lambda: store.run(client, store.jobs(limit=10)),
        "ready": lambda: store.run(client, store.health()),
        "submit": lambda: store.run(client, submission(10**9)),
        "cancel": lambda: store.run(client, store.cancel(middle)),
        "reconcile": lambda: reconcile(client, 0.0),
    }
    costs = {}
    for act, run in acts.items():
        began = time.perf_counter()
        costs[act] = commands(client, run)
        print(f"{act:>10}: {sum(costs[act].values()):4d} commands, {(time.perf_counter() - began) * 1e3:.1f} ms")
    return costs


def test_routine_costs_the_same(client: redis.Redis) -> None:
    fill(client, FEW)
    few = routine(client)
    client.flushall()
    fill(client, MANY)
    assert routine(client) == few
    assert sum(sum(cost.values()) for cost in few.values()) < 250


def test_a_pass_of_the_reconciler_is_bounded(client: redis.Redis) -> None:
    fill(client, SOME)
    lost(client, 20)
    passed(client, QUEUE_CHECK_PERIOD + 2.0)
    began = time.perf_counter()
    cost = commands(client, lambda: reconcile(client, 0.0))
    print(f"{(time.perf_counter() - began) * 1e3:.1f} ms, {sum(cost.values())} commands: {cost.most_common(5)}")
    assert client.lrange(keys.QUEUE_LIST, 0, 19) == [name(number).encode() for number in reversed(range(20))]
    assert (
        cost[f"LRANGE {keys.QUEUE_LIST}"] == 1
    )  # one look at the whole queue, whatever the number of jobs that are due
    assert cost[f"LREM {keys.QUEUE_LIST}"] == 20  # one search for each job that was lost, none for those that wait
    assert sum(cost.values()) < 20 * 40 + SOME
    check(client)


def test_looks_at_waiting_jobs_are_spread_and_leases_come_first(client: redis.Redis) -> None:
    fill(client, SOME)
    due = sorted(score for _, score in client.zrange(keys.ACTIVE, 0, -1, withscores=True))
    most = max(sum(begin <= score < begin + 10 for score in due) for begin in due[:: SOME // 20])
    # The first that were submitted are all looked at after QUEUE_CHECK_PERIOD seconds, when the queue was short.
    assert most <= QUEUE_CHECK_PERIOD * CHECKS + 12 * CHECKS
    passes = 0
    for _ in range(12):
        passed(client, 10.0)
        while client.zcount(keys.ACTIVE, "-inf", time.time()):
            assert reconcile(client, 0.0) == 0
            passes += 1
    assert passes <= 3 * 12  # 1000 jobs each
    lost(client, 1)
    passed(client, 2.0)
    assert reconcile(client, 0.0) == 1


@pytest.mark.slow
def test_a_lost_queue_is_delivered_again_in_bounded_passes(client: redis.Redis) -> None:
    fill(client, SOME)
    client.delete(keys.QUEUE_LIST)
    passed(client, SOME / CHECKS + QUEUE_CHECK_PERIOD)
    delivered = 0
    for _ in range(SOME // 1000):
        before = client.info("commandstats")["cmdstat_lrem"]["calls"]
        reconcile(client, 0.0)
        # Only the short list of ids between pop and claim is searched, never the queue: they are not in there.
        assert client.info("commandstats")["cmdstat_lrem"]["calls"] - before <= 2 * 1000
        delivered = client.llen(keys.QUEUE_LIST)
    assert delivered == SOME
    check(client)


def test_positions_are_searched_to_a_depth(client: redis.Redis) -> None:
    fill(client, 10)
    client.rpush(keys.QUEUE_LIST, *(f"other {number}" for number in range(LAST_POSITION)))
    for number, position in ((0, 0), (9, 9), (10, None)):
        store.run(client, submission(number))
        record = store.run(client, store.job(name(number)))
        assert record is not None
        assert record.queue_position == position


def test_the_list_forgets_expired_jobs_faster_than_jobs_can_end(client: redis.Redis) -> None:
    fill(client, SOME)
    for number in range(20):  # the oldest live on
        client.hset(keys.JOB + name(number), "kept", 1)
    with client.pipeline(transaction=False) as pipeline:
        for number in range(20, SOME):
            pipeline.delete(keys.JOB + name(number), f"{keys.JOB}{name(number)}:data")
        pipeline.execute()
    passes = 0
    while client.zcard(keys.JOBS) > 20 + SOME / 10:
        reconcile(client, 0.0)
        passes += 1
        assert passes < 200
    print(f"{passes} passes")
    assert passes < SOME / 200
    records, _ = store.run(client, store.jobs(limit=200))
    assert {record.id for record in records} <= {name(number) for number in range(20)}


@pytest.mark.parametrize("count", [MANY, pytest.param(50_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_they_all_drain(client: redis.Redis, count: int) -> None:
    began = time.perf_counter()
    fill(client, count)
    print(f"{count} submitted in {time.perf_counter() - began:.1f} s; {client.info('memory')['used_memory_human']}")
    if count > MANY:
        routine(client)
    passed(client, QUEUE_CHECK_PERIOD)
    began = time.perf_counter()
    while batch := client.lpop(keys.QUEUE_LIST, 500):
        ids = [job_id.decode() for job_id in batch]
        with client.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                for operation in (
                    store.claim(job_id, f"owner of {job_id}"),
                    store.finish(job_id, 1, Status.SUCCEEDED, result=b"r"),
                ):
                    for words in next(operation):
                        pipeline.execute_command(*words)
            replies = pipeline.execute()
        assert all(replies)
        assert reconcile(client, 0.0) == 0
    print(f"drained in {time.perf_counter() - began:.1f} s")
    assert client.zcard(keys.ACTIVE) == 0
    assert client.keys(f"{keys.RQ_JOB}*") == []
    assert client.zcard(keys.JOBS) >= count
