"""A job is finished by the version of the algorithm that began it, or begun again by another one, never mixed."""

from __future__ import annotations

import json

import pytest
import redis

from service.settings import Settings
from tests.operations.invariants import check
from tests.operations.versions import EMPTY, STORED, claimed, deliver, interrupted, record
from tests.service.api import serving
from worker import jobs, store
from worker.contract.description import fingerprint
from worker.embedded import EmbeddedServer
from worker.queue import reconcile
from worker.report import OTHER_VERSION
from worker.store import CONTRACT, Algorithm, Status, Verdict, keys

OLD = 4  # the last contract without a version of the algorithm
NEW = Algorithm("2", lambda spec: f"2 of {spec.decode()}")
OLD_JOB = json.loads((STORED[OLD - 1]).read_text())


def left(client: redis.Redis, job_id: str = "j") -> None:
    """The worker that holds the job has died, and somebody has noticed."""
    client.zadd(keys.ACTIVE, {job_id: 0})
    assert reconcile(client, 0.0) == 1


def begun(client: redis.Redis, contract: int = OLD, algorithm: Algorithm | None = None) -> store.Claim:
    """A job of which an attempt has stored two steps; its worker has died."""
    deliver(client, EMPTY, "j", contract)
    claim = claimed(client, "j", contract, algorithm)
    assert claim is not None
    beat(client, claim, 2, elapsed=7.5)
    left(client)
    return claim


def beat(client: redis.Redis, claim: store.Claim, count: int, elapsed: float) -> Verdict:
    steps = [b"%d of attempt %d" % (n + 1, claim.attempt) for n in range(count)]
    state = b"of attempt %d" % claim.attempt
    told = {"progress": b'{"iteration": %d}' % count, "checkpoint": state, "steps": steps}
    return store.run(
        client,
        store.beat("j", claim.attempt, elapsed=elapsed, steps_before=claim.steps, **told),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("found", [None, Algorithm("3", lambda _: "3")], ids=["older", "unknown"])
def test_what_another_version_has_begun_begins_again(client: redis.Redis, found: Algorithm | None) -> None:
    stale = begun(client, CONTRACT if found else OLD, found)
    before = record(client, "j")
    client.hset(f"{keys.JOB}j", "names", '["of its version"]')
    claim = claimed(client, "j", CONTRACT, NEW)
    assert claim is not None
    assert store.run(client, store.stored_names("j")) is None
    assert (claim.attempt, claim.checkpoint, claim.steps, claim.cancelled) == (2, None, 0, False)
    assert (claim.algorithm, claim.fingerprint, claim.elapsed) == ("2", "2 of {}", 7.5)
    now = record(client, "j")
    assert (now.status, now.attempt, now.fingerprint) == (Status.RUNNING, 2, "2 of {}")
    assert (now.progress, now.elapsed, now.started_at) == (None, 7.5, before.started_at)
    assert now.version > before.version
    assert store.run(client, store.steps("j")) == []
    assert beat(client, stale, 2, 9.0) is Verdict.FENCED
    assert not store.run(client, store.finish("j", 1, Status.SUCCEEDED, result=b"stale"))
    assert beat(client, claim, 1, 8.0) is Verdict.OK
    assert store.run(client, store.steps("j")) == [b"1 of attempt 2"]
    check(client)


def test_the_same_version_goes_on(client: redis.Redis) -> None:
    begun(client, CONTRACT, NEW)
    claim = claimed(client, "j", CONTRACT, NEW)
    assert claim is not None
    assert (claim.attempt, claim.checkpoint, claim.steps, claim.fingerprint) == (2, b"of attempt 1", 2, "2 of {}")


def test_what_a_newer_version_has_begun_again_is_left_alone_by_older_workers(client: redis.Redis) -> None:
    begun(client)
    claim = claimed(client, "j", CONTRACT, NEW)
    assert claim is not None
    left(client)  # before its first step, too
    assert claimed(client, "j", OLD) is None
    left(client)
    claim = claimed(client, "j", CONTRACT, NEW)
    assert claim is not None
    assert beat(client, claim, 3, 9.0) is Verdict.OK
    left(client)
    assert claimed(client, "j", OLD) is None
    assert record(client, "j").fingerprint == "2 of {}"
    left(client)
    again = claimed(client, "j", CONTRACT, NEW)
    assert again is not None
    assert (again.attempt, again.checkpoint, again.steps, again.elapsed) == (4, b"of attempt 3", 3, 9.0)
    check(client)


def test_a_job_of_an_older_service_gets_the_fingerprint_of_the_worker_that_begins_it(client: redis.Redis) -> None:
    deliver(client, EMPTY, "j", OLD)
    claim = claimed(client, "j", CONTRACT, NEW)
    assert claim is not None
    assert (claim.attempt, claim.fingerprint, record(client, "j").fingerprint) == (1, "2 of {}", "2 of {}")


def test_a_job_of_an_older_service_stays_what_it_is_with_an_older_worker(client: redis.Redis) -> None:
    begun(client)
    claim = claimed(client, "j", OLD)
    assert claim is not None
    assert (claim.attempt, claim.checkpoint, claim.fingerprint) == (2, b"of attempt 1", "f")


def test_a_job_of_a_newer_service_waits_for_a_newer_worker(client: redis.Redis) -> None:
    """An older worker would give its numbers under the newer fingerprint."""
    deliver(client, {**EMPTY, "algorithm": "2", "fingerprint": "2 of {}"}, "j", CONTRACT)
    assert claimed(client, "j", OLD) is None
    left(client)
    claim = claimed(client, "j", CONTRACT, NEW)
    assert claim is not None
    assert (claim.attempt, claim.fingerprint) == (1, "2 of {}")


def test_a_job_is_not_lost_between_the_two_halves_of_a_claim(client: redis.Redis) -> None:
    """The worker dies while it computes the fingerprint."""
    begun(client)
    assert client.lmove(keys.QUEUE_LIST, keys.INTERMEDIATE_LIST) == b"j"
    before = client.hgetall(f"{keys.JOB}j")

    def dies(_: bytes) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.run(client, store.claim("j", "o", algorithm=Algorithm("2", dies)))
    assert client.hgetall(f"{keys.JOB}j") == before
    assert client.lrange(keys.INTERMEDIATE_LIST, 0, -1) == [b"j"]  # so that its loss is noticed soon
    assert len(store.run(client, store.steps("j"))) == 2
    left(client)
    assert claimed(client, "j", CONTRACT, NEW) is not None
    check(client)


def test_a_cancelled_job_is_handed_out_as_it_is(client: redis.Redis) -> None:
    begun(client)
    store.run(client, store.cancel("j"))
    for attempt in (2, 3):
        claim = claimed(client, "j", CONTRACT, NEW)
        assert claim is not None
        assert (claim.attempt, claim.cancelled, claim.algorithm) == (attempt, True, "1")
        assert (claim.checkpoint, claim.steps, claim.fingerprint) == (b"of attempt 1", 2, "f")
        left(client)
    assert claimed(client, "j", OLD) is None  # what a newer worker has seen to


def test_a_job_that_is_cancelled_while_it_is_claimed(client: redis.Redis) -> None:
    """Between the two halves of the claim."""
    begun(client)

    def late(_: bytes) -> str:
        assert store.run(client, store.cancel("j")) is Status.CANCELLING
        return "2"

    claim = claimed(client, "j", CONTRACT, Algorithm("2", late))
    assert claim is not None
    assert (claim.cancelled, claim.checkpoint, claim.fingerprint) == (True, b"of attempt 1", "f")


def test_a_horse_that_is_killed_before_the_first_step_of_the_new_version(client: redis.Redis) -> None:
    """Nothing of the older version is left to conclude with."""
    begun(client)
    claim = claimed(client, "j", CONTRACT, NEW)
    assert claim is not None
    jobs.conclude_killed(client, "j", claim.attempt, "max_seconds")
    ended = record(client, "j")
    assert (ended.status, ended.progress) == (Status.FAILED, None)
    assert json.loads(ended.error or b"")["code"] == "max_seconds"
    assert store.run(client, store.result("j")) is None
    check(client)


def test_a_horse_that_is_killed_while_it_concludes_what_an_older_version_found(client: redis.Redis) -> None:
    deliver(client, OLD_JOB, "j", CONTRACT + 1)
    interrupted(client, OLD_JOB, cancelled=True)
    claim = claimed(client, "j", CONTRACT, jobs.OURS)
    assert claim is not None
    jobs.conclude_killed(client, "j", claim.attempt, "cancelled")
    assert record(client, "j").status is Status.CANCELLED
    result = json.loads(store.run(client, store.result("j")) or b"")
    assert result["messages"][0] == OTHER_VERSION
    assert result["fingerprint"] == record(client, "j").fingerprint == OLD_JOB["fingerprint"]
    best = min(OLD_JOB["steps"], key=lambda step: float(step["value"]))
    assert [h["value"] for h in result["hyperparameters"]] == best["hyperparameters"]
    check(client)


def test_callers_see_that_a_job_begins_again(client: redis.Redis, operated: EmbeddedServer) -> None:
    job_id = f"job_{0:024x}"
    deliver(client, OLD_JOB, job_id, OLD)
    old = claimed(client, job_id, OLD)
    assert old is not None
    with serving(Settings(redis_url=operated.url)) as api:
        state = {"progress": b'{"iteration": 9, "evaluations": 9, "elapsed_s": 7.5}', "checkpoint": b"c"}
        steps = [json.dumps(step).encode() for step in OLD_JOB["steps"]]
        store.run(client, store.beat(job_id, 1, elapsed=7.5, steps=steps, **state))  # type: ignore[arg-type]
        before = api.get(f"/v1/jobs/{job_id}")
        assert before.json()["fingerprint"] == OLD_JOB["fingerprint"]
        assert len(api.steps(job_id)) == len(steps)
        left(client, job_id)
        assert claimed(client, job_id, CONTRACT, jobs.OURS) is not None
        after = api.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": before.headers["ETag"]})
        assert after.status_code == 200
        now = after.json()
        assert (now["status"], now["attempt"], now["fingerprint"]) == (
            "running",
            2,
            fingerprint(OLD_JOB["description"]),
        )
        assert (now["progress"]["iteration"], now["progress"]["elapsed_s"]) == (0, 7.5)
        assert api.steps(job_id) == []
