import asyncio
import json
from collections.abc import Callable

import pytest
import redis

from worker import store
from worker.embedded import EmbeddedServer
from worker.queue import delivery, reconcile
from worker.store import Admission, Deletion, Hold, Status, Verdict, keys

Submit = Callable[..., Admission]
LONG = 1000.0


def claim(client: redis.Redis, job_id: str, owner: str = "a", **options: float) -> store.Claim | None:
    return store.run(client, store.claim(job_id, owner, **{"lease": LONG, **options}))


def claimed(client: redis.Redis, job_id: str, owner: str = "a") -> store.Claim:
    taken = claim(client, job_id, owner)
    assert taken is not None
    return taken


def status(client: redis.Redis, job_id: str) -> Status:
    record = store.run(client, store.job(job_id))
    assert record is not None
    return record.status


def beat(client: redis.Redis, job_id: str, attempt: int, done: int | None = None) -> Verdict:
    """One step, stored with its checkpoint; none with `done=None`."""
    if done is None:
        operation = store.beat(job_id, attempt, progress=b"{}", elapsed=1.0)
    else:
        operation = store.beat(
            job_id,
            attempt,
            progress=b"{}",
            elapsed=1.0,
            checkpoint=str(done).encode(),
            steps=[str(done).encode()],
            steps_before=done - 1,
        )
    return store.run(client, operation)


def finish(client: redis.Redis, job_id: str, attempt: int, end: Status = Status.SUCCEEDED) -> bool:
    return store.run(client, store.finish(job_id, attempt, end, stop_reason="converged", result=b"{}"))


def expire_lease(client: redis.Redis, job_id: str) -> None:
    client.zadd(keys.ACTIVE, {job_id: 0}, xx=True)


def overdue(client: redis.Redis) -> list[str]:
    return store.run(client, store.overdue(lease=0.0))


# submit


def test_a_job_is_read_back_as_it_was_submitted(client: redis.Redis) -> None:
    job = store.Submission("j", b'{"a": 1}', b"\x00\xff", "f", 12.5, {"team": "\u00e4"}, "r", "t")
    assert store.run(client, store.submit(job, delivery("j"))) is Admission.CREATED
    record = store.run(client, store.job("j"))
    assert record is not None
    assert (record.spec, record.labels, record.fingerprint, record.seconds) == (
        b'{"a": 1}',
        {"team": "\u00e4"},
        "f",
        12.5,
    )
    assert (record.request_id, record.traceparent, record.attempt, record.version) == ("r", "t", 0, 1)
    assert (record.status, record.queue_position, record.done) == (Status.QUEUED, 0, False)
    assert record.created_at > 1.7e9
    assert (record.started_at, record.finished_at, record.progress, record.stop_reason) == (None, None, None, None)
    taken = claimed(client, "j")
    assert (taken.data, taken.checkpoint, taken.steps, taken.attempt) == (b"\x00\xff", None, 0, 1)


def test_a_second_submission_changes_nothing(client: redis.Redis, submit: Submit) -> None:
    assert submit("j", steps=1)
    claimed(client, "j")
    assert submit("j", steps=2) is Admission.EXISTS
    assert not Admission.EXISTS
    record = store.run(client, store.job("j"))
    assert record is not None
    assert (record.status, json.loads(record.spec)) == (Status.RUNNING, {"steps": 1})
    assert client.llen(keys.QUEUE_LIST) == 1


def test_a_full_queue_refuses(client: redis.Redis) -> None:
    def submit(job_id: str) -> Admission:
        job = store.Submission(job_id, b"{}", b"", "f", 1.0)
        return store.run(client, store.submit(job, delivery(job_id), max_queued=2))

    assert [submit("a"), submit("b"), submit("c")] == [Admission.CREATED, Admission.CREATED, Admission.FULL]
    assert store.run(client, store.job("c")) is None
    assert submit("a") is Admission.EXISTS


# claim


def test_an_unknown_job_is_skipped_and_its_delivery_forgotten(client: redis.Redis) -> None:
    client.hset(f"{keys.RQ_JOB}x", "data", "x")
    assert claim(client, "x") is None
    assert client.exists(f"{keys.RQ_JOB}x") == 0


def test_a_claim_is_exclusive_while_the_lease_lives(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    assert claimed(client, "j", "a").attempt == 1
    assert claim(client, "j", "b") is None
    expire_lease(client, "j")
    assert claimed(client, "j", "b").attempt == 2
    assert beat(client, "j", 1) is Verdict.FENCED


def test_a_claim_sent_twice_is_one_claim(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    assert claim(client, "j", "a") == claim(client, "j", "a")


def test_a_job_that_kills_its_workers_fails(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    for attempt in (1, 2, 3):
        assert claimed(client, "j", f"o{attempt}").attempt == attempt
        expire_lease(client, "j")
    assert claim(client, "j", "o4") is None
    record = store.run(client, store.job("j"))
    assert record is not None
    assert record.status is Status.FAILED
    assert json.loads(record.error or b"")["code"] == "worker-lost"


def test_progress_clears_the_count_of_claims(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    for attempt in range(1, 7):
        taken = claimed(client, "j", f"o{attempt}")
        assert taken.checkpoint == (str(attempt - 1).encode() if attempt > 1 else None)
        beat(client, "j", attempt, done=attempt)
        expire_lease(client, "j")
    assert store.run(client, store.steps("j")) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert store.run(client, store.steps("j", 4)) == [b"5", b"6"]


# beat


def test_steps_are_stored_once_however_often_they_are_sent(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    claimed(client, "j")
    for _ in range(3):
        assert beat(client, "j", 1, done=1) is Verdict.OK
    batch = store.beat("j", 1, progress=b"", elapsed=1.0, checkpoint=b"3", steps=[b"1", b"2", b"3"], steps_before=0)
    assert store.run(client, batch) is Verdict.OK
    assert store.run(client, store.steps("j")) == [b"1", b"2", b"3"]
    with pytest.raises(redis.ResponseError, match="missing"):
        beat(client, "j", 1, done=9)
    with pytest.raises(ValueError, match="checkpoint"):
        store.run(client, store.beat("j", 1, progress=b"", elapsed=1.0, steps=[b"4"], steps_before=3))


def test_a_beat_keeps_the_lease(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    claimed(client, "j")
    for done in (None, 1):
        expire_lease(client, "j")
        assert overdue(client) == ["j"]
        assert beat(client, "j", 1, done) is Verdict.OK
        assert overdue(client) == []
        assert claim(client, "j", "b") is None
        assert LONG / 2 < client.zscore(keys.ACTIVE, "j") - client.time()[0] <= LONG + 1


def test_each_visible_change_has_a_version_and_rings_the_bell(client: redis.Redis, submit: Submit) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as bell:
        bell.subscribe(store.CHANGED)
        bell.get_message(timeout=5.0)
        submit("j")
        claimed(client, "j")
        beat(client, "j", 1)
        store.run(client, store.beat("j", 1, elapsed=2.0, checkpoint=b"saved, and nothing told"))
        store.run(client, store.watch("j", "a", attempt_before=0, lease=LONG))
        assert store.run(client, store.cancel("j")) is Status.CANCELLING
        assert store.run(client, store.cancel("j")) is Status.CANCELLING  # no change
        finish(client, "j", 1, Status.CANCELLED)
        rung = [bell.get_message(timeout=5.0) for _ in range(5)]
        record = store.run(client, store.job("j"))
        assert record is not None
        assert record.version == 5
        assert store.run(client, store.delete("j")) is Deletion.DELETED
        rung += [bell.get_message(timeout=5.0), bell.get_message(timeout=0.05)]
    assert [message and message["data"] for message in rung] == [b"j"] * 6 + [None]


# watch and release


def test_a_watch_tells_owners_apart(client: redis.Redis, submit: Submit) -> None:
    def hold(owner: str, before: int) -> Hold:
        return store.run(client, store.watch("j", owner, attempt_before=before, lease=LONG)).hold

    assert hold("a", 0) is Hold.DONE
    submit("j")
    assert hold("a", 0) is Hold.WAITING
    claimed(client, "j", "a")
    assert (hold("a", 0), hold("b", 0), hold("b", 1)) == (Hold.HELD, Hold.FENCED, Hold.WAITING)
    expire_lease(client, "j")
    assert reconcile(client, 0.0) == 1
    assert hold("a", 0) is Hold.FENCED
    claimed(client, "j", "b")
    assert (hold("a", 0), hold("b", 1)) == (Hold.FENCED, Hold.HELD)
    finish(client, "j", 2)
    assert hold("b", 1) is Hold.DONE


def test_a_watch_keeps_the_lease(client: redis.Redis, submit: Submit) -> None:
    submit("j", seconds=7.0)
    claimed(client, "j")
    expire_lease(client, "j")
    watch = store.run(client, store.watch("j", "a", attempt_before=0, lease=LONG))
    assert (watch.hold, watch.attempt, watch.cancelled, watch.limit) == (Hold.HELD, 1, False, 7.0)
    assert overdue(client) == []
    store.run(client, store.cancel("j"))
    watch = store.run(client, store.watch("j", "a", attempt_before=0, lease=LONG))
    assert watch.cancelled


def test_a_released_job_is_first_in_the_queue(client: redis.Redis, submit: Submit) -> None:
    for name in ("a", "b"):
        submit(name)
    client.lmove(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST)
    claimed(client, "a", "o")
    assert client.lrange(keys.INTERMEDIATE_LIST, 0, -1) == []
    release = store.release("a", "o", delivery("a", at_front=True))
    assert store.run(client, release) is True
    assert store.run(client, store.release("a", "o", delivery("a", at_front=True))) is False
    assert client.lrange(keys.QUEUE_LIST, 0, -1) == [b"a", b"b"]
    assert status(client, "a") is Status.QUEUED
    assert beat(client, "a", 1) is Verdict.FENCED
    assert finish(client, "a", 1) is False


def test_a_release_without_delivery_is_overdue_at_once(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    client.delete(keys.QUEUE_LIST)
    claimed(client, "j", "o")
    assert store.run(client, store.release("j", "o")) is True
    assert overdue(client) == ["j"]


def test_a_blameless_end_does_not_count(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    for n in range(1, 6):
        assert claimed(client, "j", f"o{n}").attempt == n
        assert store.run(client, store.release("j", f"o{n}", delivery("j"), blameless=True))
    client.delete(keys.QUEUE_LIST)
    client.rpush(keys.INTERMEDIATE_LIST, "j")  # popped, and the worker is told to stop before the claim
    assert store.run(client, store.release("j", "other", delivery("j"), blameless=True))
    assert not store.run(client, store.release("j", "other", delivery("j"), blameless=True))
    assert client.lrange(keys.QUEUE_LIST, 0, -1) == [b"j"]


# cancel


def test_a_queued_job_is_cancelled_at_once(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    assert store.run(client, store.cancel("j")) is Status.CANCELLED
    assert store.run(client, store.cancel("j")) is Status.CANCELLED
    assert client.exists(keys.QUEUE_LIST, f"{keys.RQ_JOB}j", f"{keys.JOB}j:data") == 0
    assert claim(client, "j") is None
    assert store.run(client, store.cancel("unknown")) is None


@pytest.mark.parametrize("end", [Status.CANCELLED, Status.SUCCEEDED, Status.FAILED])
def test_a_running_job_is_told_and_ends_as_it_likes(client: redis.Redis, submit: Submit, end: Status) -> None:
    submit("j")
    claimed(client, "j")
    with pytest.raises(store.IllegalMoveError):
        finish(client, "j", 1, Status.CANCELLED)  # nobody asked for that
    assert status(client, "j") is Status.RUNNING
    assert store.run(client, store.cancel("j")) is Status.CANCELLING
    assert store.run(client, store.cancel("j")) is Status.CANCELLING
    assert beat(client, "j", 1) is Verdict.CANCEL
    assert finish(client, "j", 1, end) is True
    assert status(client, "j") is end
    assert store.run(client, store.cancel("j")) is end


def test_a_cancelled_job_whose_worker_died_is_concluded_by_the_next(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    claimed(client, "j", "o1")
    beat(client, "j", 1, done=1)
    store.run(client, store.cancel("j"))
    assert store.run(client, store.release("j", "o1", delivery("j")))
    assert status(client, "j") is Status.CANCELLING
    assert beat(client, "j", 1) is Verdict.FENCED
    taken = claimed(client, "j", "o2")
    assert (taken.cancelled, taken.checkpoint, taken.attempt) == (True, b"1", 2)
    assert finish(client, "j", 2, Status.CANCELLED)


def test_a_cancelled_job_without_a_checkpoint_ends_with_its_worker(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    claimed(client, "j", "o1")
    store.run(client, store.cancel("j"))
    store.run(client, store.release("j", "o1", delivery("j")))
    assert claim(client, "j", "o2") is None
    assert status(client, "j") is Status.CANCELLED


def test_cancelling_an_interrupted_job_keeps_its_best_so_far(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    claimed(client, "j", "o1")
    beat(client, "j", 1, done=1)
    store.run(client, store.release("j", "o1", delivery("j")))
    assert store.run(client, store.cancel("j")) is Status.CANCELLING
    assert claimed(client, "j", "o2").cancelled


# finish and delete


def test_only_the_current_attempt_finishes_and_only_once(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    claimed(client, "j", "o1")
    expire_lease(client, "j")
    claimed(client, "j", "o2")
    assert finish(client, "j", 1) is False
    last = store.finish("j", 2, Status.SUCCEEDED, result=b"2", elapsed=3.5, progress=b"p", steps=[b"s"], steps_before=0)
    assert store.run(client, last) is True
    assert finish(client, "j", 2) is True  # a resend: the same answer, and nothing is written
    assert finish(client, "j", 2, Status.FAILED) is False
    assert store.run(client, store.result("j")) == b"2"
    assert store.run(client, store.steps("j")) == [b"s"]
    record = store.run(client, store.job("j"))
    assert record is not None
    assert (record.status, record.elapsed, record.progress, record.stop_reason) == (Status.SUCCEEDED, 3.5, b"p", None)
    assert record.finished_at is not None
    assert store.run(client, store.held("j", 2)) is None


def test_an_ended_job_leaves_nothing_but_its_outcome_for_a_while(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    claimed(client, "j")
    beat(client, "j", 1, done=1)
    held = store.run(client, store.held("j", 1))
    assert held is not None
    assert held.checkpoint == b"1"
    assert finish(client, "j", 1)
    left = {key.decode() for key in client.keys(f"{keys.JOB}j*")}
    assert left == {f"{keys.JOB}j", f"{keys.JOB}j:steps", f"{keys.JOB}j:result"}
    assert all(0 < client.ttl(key) <= store.RETENTION for key in left)
    assert client.zcard(keys.ACTIVE) == 0
    assert client.exists(f"{keys.RQ_JOB}j") == 0


def test_a_job_is_deleted_only_when_it_has_ended(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    assert store.run(client, store.delete("j")) is Deletion.LIVE
    claimed(client, "j")
    assert store.run(client, store.delete("j")) is Deletion.LIVE
    finish(client, "j", 1)
    assert store.run(client, store.delete("j")) is Deletion.DELETED
    assert store.run(client, store.delete("j")) is Deletion.UNKNOWN
    assert client.keys(f"{keys.PREFIX}*") == []
    assert store.run(client, store.result("j")) is None


# reconcile


def test_what_is_in_its_place_is_left_alone(client: redis.Redis, submit: Submit) -> None:
    submit("waits")
    submit("runs")
    claimed(client, "runs")
    client.lrem(keys.QUEUE_LIST, 0, "runs")
    assert overdue(client) == []
    expire_lease(client, "waits")  # due for a look, and still in the queue
    assert overdue(client) == []
    assert client.zscore(keys.ACTIVE, "waits") > 0
    assert store.run(client, store.redeliver("waits", delivery("waits"))) is False


def test_a_lost_delivery_is_made_again(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    client.delete(keys.QUEUE_LIST)
    expire_lease(client, "j")
    assert overdue(client) == ["j"]
    assert [reconcile(client, 0.0) for _ in range(3)] == [1, 0, 0]
    assert client.lrange(keys.QUEUE_LIST, 0, -1) == [b"j"]
    assert claimed(client, "j").attempt == 1


def test_a_popped_job_that_nobody_claims_is_delivered_again(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    client.lmove(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST)
    assert overdue(client) == []
    server_time = client.time()
    assert client.zscore(keys.ACTIVE, "j") < server_time[0] + 10  # looked after soon
    expire_lease(client, "j")
    assert reconcile(client, 0.0) == 1
    assert client.lrange(keys.QUEUE_LIST, 0, -1) == [b"j"]
    assert client.lrange(keys.INTERMEDIATE_LIST, 0, -1) == []


def test_an_expired_lease_is_taken_back_by_one_reconciler(client: redis.Redis, submit: Submit) -> None:
    submit("a")
    submit("b")
    client.delete(keys.QUEUE_LIST)
    claimed(client, "b")
    expire_lease(client, "b")
    first, second = overdue(client), overdue(client)
    assert first == second == ["b"]
    again = delivery("b", at_front=True)
    assert [store.run(client, store.redeliver("b", again)) for _ in range(2)] == [True, False]
    assert status(client, "b") is Status.QUEUED
    assert beat(client, "b", 1) is Verdict.FENCED


def test_nothing_is_overdue_just_after_a_start(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    claimed(client, "j")
    expire_lease(client, "j")
    assert reconcile(client, 10_000.0) == 0
    assert reconcile(client, 0.0) == 1


def test_leftovers_are_swept(client: redis.Redis, submit: Submit) -> None:
    submit("j")
    client.delete(f"{keys.JOB}j")  # expired
    client.rpush(keys.INTERMEDIATE_LIST, "j")
    expire_lease(client, "j")
    assert overdue(client) == []
    assert client.exists(keys.JOBS, keys.ACTIVE, keys.INTERMEDIATE_LIST) == 0


# lists and probes


def test_pages_are_stable_while_jobs_arrive(client: redis.Redis, submit: Submit) -> None:
    names = [f"j{n}" for n in range(7)]
    for name in names:
        submit(name)
    seen, cursor = [], None
    for n in range(5):
        page, cursor = store.run(client, store.jobs(limit=3, cursor=cursor))
        seen += [record.id for record in page]
        submit(f"late{n}")
        if cursor is None:
            break
    assert seen == names[::-1]


def test_jobs_of_the_same_microsecond_are_listed_once(client: redis.Redis, submit: Submit) -> None:
    names = [f"j{n:02}" for n in range(30)]
    for name in names:
        submit(name)
        client.zadd(keys.JOBS, {name: 1_700_000_000_000_000})
    seen, cursor = [], None
    for _ in range(40):
        page, cursor = store.run(client, store.jobs(limit=2, cursor=cursor))
        seen += [record.id for record in page]
        if cursor is None:
            break
    assert seen == names[::-1]


def test_pages_are_filtered(client: redis.Redis, submit: Submit) -> None:
    for n in range(6):
        submit(f"j{n}", labels={"parity": str(n % 2), "n": str(n)})
    claimed(client, "j3")

    def names(**query: object) -> list[str]:
        page, _ = store.run(client, store.jobs(**query))
        return [record.id for record in page]

    assert names(status=Status.RUNNING) == ["j3"]
    assert names(labels={"parity": "0"}) == ["j4", "j2", "j0"]
    assert names(labels={"parity": "1"}, status=Status.QUEUED, limit=1) == ["j5"]
    assert names(labels={"parity": "2"}) == []
    page, cursor = store.run(client, store.jobs(labels={"parity": "1"}, limit=2))
    assert [record.id for record in page] == ["j5", "j3"]
    page, cursor = store.run(client, store.jobs(labels={"parity": "1"}, limit=2, cursor=cursor))
    assert ([record.id for record in page], cursor) == (["j1"], None)


def test_expired_jobs_leave_the_list(client: redis.Redis, submit: Submit) -> None:
    for n in range(4):
        submit(f"j{n}")
    client.delete(f"{keys.JOB}j1", f"{keys.JOB}j2")
    page, cursor = store.run(client, store.jobs(limit=4))
    assert [record.id for record in page] == ["j3", "j0"]
    assert client.zcard(keys.JOBS) == 2
    while cursor is not None:
        page, cursor = store.run(client, store.jobs(cursor=cursor))
        assert page == []


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "MTI", "\u00e4"])
def test_a_broken_cursor_is_refused(client: redis.Redis, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        store.run(client, store.jobs(cursor=cursor))


def test_the_same_operations_run_asynchronously(
    any_server: EmbeddedServer, client: redis.Redis, submit: Submit
) -> None:
    submit("j")

    async def read() -> tuple[object, ...]:
        async with store.aconnect(any_server.url, connections=2) as connected:
            records = await asyncio.gather(*(store.arun(connected, store.job("j")) for _ in range(20)))
            page, _ = await store.arun(connected, store.jobs())
            await store.arun(connected, store.claim("j", "o"))
            with pytest.raises(store.IllegalMoveError):
                await store.arun(connected, store.finish("j", 1, Status.EXPIRED))
            return (
                len({record and record.id for record in records}),
                len(page),
                await store.arun(connected, store.ping()),
            )

    assert asyncio.run(read()) == (1, 1, True)


def test_the_probes_count(client: redis.Redis, submit: Submit) -> None:
    submit("a")
    submit("b")
    client.sadd(keys.RQ_WORKERS, "rq:worker:live", "rq:worker:dead")
    client.hset("rq:worker:live", "state", "idle")
    assert store.run(client, store.ping()) is True
    assert store.run(client, store.health()) == store.Health(workers=1, queued=2, active=2)
