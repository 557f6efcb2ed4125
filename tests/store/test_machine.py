"""Random interleavings of clients, workers, deaths and reconcilers, checked against a model and the lifecycle table."""

import math
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests import clock
from worker import store
from worker.queue import delivery, reconcile
from worker.store import MOVES, TERMINAL, Admission, Deletion, Status, Verdict, keys

LIVE = {Status.RUNNING, Status.CANCELLING}
LEASE = 1000.0
STEPS = (1.3, 701.3, 1500.7, 7203.1)  # seconds by which the server's clock steps; no sum of few of them is a lease


@dataclass
class Model:
    status: Status = Status.QUEUED
    attempt: int = 0
    owner: str | None = None
    leased_until: float = -math.inf  # in seconds by which the server's clock has stepped: no time passes otherwise
    steps: int = 0
    algorithm: str = store.FIRST_ALGORITHM
    claims: int = 0
    finishes: int = 0
    result: bytes | None = None
    seen: list[Status] = field(default_factory=lambda: [Status.QUEUED])

    @property
    def fingerprint(self) -> str:
        return f"{{}} {self.algorithm}"


@dataclass(frozen=True)
class Attempt:
    job_id: str
    number: int
    owner: str


class Lifecycle(RuleBasedStateMachine):
    client: redis.Redis
    jobs = Bundle("jobs")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.model: dict[str, Model] = {}
        self.deleted: set[str] = set()
        self.owners = 0
        self.ahead = 0.0
        self.last, self.last_ahead = store.Pass(), math.nan

    def leased(self, model: Model) -> bool:
        return model.leased_until > self.ahead

    def extend(self, model: Model) -> None:
        model.leased_until = self.ahead + LEASE

    @rule(target=jobs)
    def submit(self) -> str:
        job_id = f"j{len(self.model) + len(self.deleted)}"
        job = store.Submission(job_id, b"{}", b"d", "{} 1", 60.0)
        assert store.run(self.client, store.submit(job, delivery(job_id))) is Admission.CREATED
        self.model[job_id] = Model()
        return job_id

    @rule(job_id=jobs)
    def submit_again(self, job_id: str) -> None:
        if job_id in self.model:
            job = store.Submission(job_id, b"other", b"d", "f", 60.0)
            assert store.run(self.client, store.submit(job, delivery(job_id))) is Admission.EXISTS

    @rule(job_id=jobs)
    def pop(self, job_id: str) -> None:
        if self.client.lrem(keys.QUEUE_LIST, 1, job_id):
            self.client.rpush(keys.INTERMEDIATE_LIST, job_id)

    @rule(target=attempts, job_id=jobs, version=st.sampled_from(["1", "2"]))
    def claim(self, job_id: str, version: str) -> object:
        self.owners += 1
        owner = f"o{self.owners}"
        algorithm = store.Algorithm(version, lambda spec: f"{spec.decode()} {version}")
        claim = store.run(self.client, store.claim(job_id, owner, lease=LEASE, algorithm=algorithm))
        model = self.model.get(job_id)
        free = model is not None and model.status not in TERMINAL and not (model.owner and self.leased(model))
        if model is None or not free:
            assert claim is None
            return multiple()
        model.owner = None
        if model.status is Status.RUNNING:
            self.move(model, Status.QUEUED)  # taken over
        if model.status is Status.CANCELLING and (model.steps == 0 or model.claims >= store.MAX_CLAIMS):
            assert claim is None
            self.move(model, Status.CANCELLED)
            return multiple()
        if model.claims >= store.MAX_CLAIMS:
            assert claim is None
            self.move(model, Status.RUNNING)
            self.move(model, Status.FAILED)
            return multiple()
        assert claim is not None
        model.attempt += 1
        model.claims += 1
        model.owner = owner
        self.extend(model)
        if model.status is not Status.CANCELLING:
            self.move(model, Status.RUNNING)
            if model.algorithm != version:
                model.algorithm, model.steps = version, 0
        assert (claim.attempt, claim.steps, claim.algorithm) == (model.attempt, model.steps, model.algorithm)
        assert claim.fingerprint == model.fingerprint
        assert claim.checkpoint == (b"%d" % model.steps if model.steps else None)
        assert claim.cancelled == (model.status is Status.CANCELLING)
        return Attempt(job_id, claim.attempt, owner)

    @rule(target=attempts, attempt=attempts, version=st.sampled_from(["1", "2"]))
    def take_over(self, attempt: Attempt, version: str) -> object:
        """Worker and horse die after a step, and another worker is there at once."""
        self.beat(attempt, 1, resend=False)
        self.expire(attempt.job_id)
        return self.claim(attempt.job_id, version)

    def current(self, attempt: Attempt) -> Model | None:
        model = self.model.get(attempt.job_id)
        holds = model is not None and model.status in LIVE and model.owner == attempt.owner
        return model if holds else None

    @rule(attempt=attempts, count=st.integers(0, 3), resend=st.booleans())
    def beat(self, attempt: Attempt, count: int, resend: bool) -> None:
        model = self.current(attempt)
        before = model.steps if model else 0
        names = [b"%d" % (before + n + 1) for n in range(count)]
        for _ in range(1 + resend):
            beat = store.beat(
                attempt.job_id,
                attempt.number,
                progress=b"p",
                elapsed=1.0,
                checkpoint=b"%d" % (before + count) if count else None,
                steps=names,
                steps_before=before,
            )
            verdict = store.run(self.client, beat)
            if model is None:
                assert verdict is Verdict.FENCED
            else:
                assert verdict is (Verdict.CANCEL if model.status is Status.CANCELLING else Verdict.OK)
        if model is not None:
            model.steps += count
            self.extend(model)
            if count:
                model.claims = 0

    @rule(attempt=attempts, end=st.sampled_from([Status.SUCCEEDED, Status.FAILED, Status.CANCELLED]))
    def finish(self, attempt: Attempt, end: Status) -> None:
        model = self.current(attempt)
        result = f"{attempt.owner} {end}".encode()
        operation = store.finish(attempt.job_id, attempt.number, end, result=result)
        if model is not None and end not in MOVES[model.status]:
            try:
                store.run(self.client, operation)
            except store.IllegalMoveError:
                return
            raise AssertionError("an illegal move was made")
        done = store.run(self.client, operation)
        past = self.model.get(attempt.job_id)
        if model is None:
            resent = past is not None and past.status is end and past.attempt == attempt.number
            assert done == resent
            return
        assert done
        model.finishes += 1
        model.result = result
        self.move(model, end)

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        model = self.model.get(job_id)
        status = store.run(self.client, store.cancel(job_id))
        if model is None:
            assert status is None
            return
        if model.status is Status.QUEUED:
            self.move(model, Status.CANCELLING if model.steps else Status.CANCELLED)
        elif model.status is Status.RUNNING:
            self.move(model, Status.CANCELLING)
        assert status is model.status

    @rule(attempt=attempts, blameless=st.booleans())
    def die(self, attempt: Attempt, blameless: bool) -> None:
        """The horse dies and its parent notices."""
        model = self.current(attempt)
        again = delivery(attempt.job_id, at_front=True)
        self.client.lrem(keys.INTERMEDIATE_LIST, 0, attempt.job_id)
        released = store.run(self.client, store.release(attempt.job_id, attempt.owner, again, blameless=blameless))
        assert released == (model is not None)
        if model is not None:
            model.owner = None
            model.claims -= blameless and model.claims > 0
            if model.status is Status.RUNNING:
                self.move(model, Status.QUEUED)

    @rule(job_id=jobs)
    def expire(self, job_id: str) -> None:
        """Worker and horse die, or the time of a look at a queued job has come."""
        self.client.zadd(keys.ACTIVE, {job_id: 0}, xx=True)
        if job_id in self.model:
            self.model[job_id].leased_until = -math.inf

    @rule(seconds=st.sampled_from(STEPS), back=st.booleans())
    def step_of_the_clock(self, seconds: float, back: bool) -> None:
        self.ahead += -seconds if back else seconds
        clock.step(self.client, -seconds if back else seconds)

    @rule(times=st.integers(1, 2), sees_steps=st.booleans())
    def reconcile(self, times: int, sees_steps: bool) -> None:
        for _ in range(times):
            reconcile(self.client, 0.0, last=self.last if sees_steps else None)
            step = self.ahead - self.last_ahead if sees_steps else 0.0  # nan at the first pass: compares as false
            self.last_ahead = self.ahead if sees_steps else self.last_ahead
            self.passed(forward=step > store.operations.LARGEST_DRIFT)

    def passed(self, *, forward: bool) -> None:
        """A pass of a reconciler, who may have seen a step forward."""
        for model in self.model.values():
            if model.owner is None or model.status not in LIVE:
                continue
            if model.leased_until > self.ahead + LEASE or (forward and not self.leased(model)):
                self.extend(model)
            if not self.leased(model):
                model.owner = None
                if model.status is Status.RUNNING:
                    self.move(model, Status.QUEUED)

    @rule(job_id=consumes(jobs))
    def delete(self, job_id: str) -> object:
        model = self.model.get(job_id)
        answer = store.run(self.client, store.delete(job_id))
        if model is None:
            assert answer is Deletion.UNKNOWN
        elif model.status in TERMINAL:
            assert answer is Deletion.DELETED
            del self.model[job_id]
            self.deleted.add(job_id)
        else:
            assert answer is Deletion.LIVE
        return None

    @staticmethod
    def move(model: Model, status: Status) -> None:
        assert status in MOVES[model.status]
        model.status = status
        model.seen.append(status)

    @invariant()
    def agrees(self) -> None:
        for job_id, model in self.model.items():
            record = store.run(self.client, store.job(job_id))
            assert record is not None
            assert (record.status, record.attempt) == (model.status, model.attempt)
            assert record.fingerprint == model.fingerprint
            assert store.run(self.client, store.steps(job_id)) == [b"%d" % (n + 1) for n in range(model.steps)]
            assert store.run(self.client, store.result(job_id)) == model.result
            assert model.finishes <= 1

    @invariant()
    def nothing_is_forgotten(self) -> None:
        active = {name.decode() for name in self.client.zrange(keys.ACTIVE, 0, -1)}
        assert active == {job_id for job_id, model in self.model.items() if model.status not in TERMINAL}
        listed, _ = store.run(self.client, store.jobs(limit=1000))
        assert {record.id for record in listed} == set(self.model)

    def teardown(self) -> None:
        """Whatever has happened, the reconciler and one worker bring every job to its end."""
        for job_id in self.model:
            self.expire(job_id)
        reconcile(self.client, 0.0)
        while (popped := self.client.lpop(keys.QUEUE_LIST)) is not None:
            claim = store.run(self.client, store.claim(popped.decode(), "last", lease=LEASE))
            if claim is not None:
                end = Status.CANCELLED if claim.cancelled else Status.SUCCEEDED
                assert store.run(self.client, store.finish(claim.id, claim.attempt, end))
        assert self.client.zcard(keys.ACTIVE) == 0
        super().teardown()


@pytest.mark.parametrize("runs", [6, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_every_interleaving_keeps_to_the_table(client: redis.Redis, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.make_settable(monkeypatch.setattr)
    Lifecycle.client = client
    chosen = settings(
        max_examples=runs,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],  # to make a failure small takes minutes: do that by hand
    )
    run_state_machine_as_test(Lifecycle, settings=chosen)
