"""The job loop, interrupted anywhere: what it has told is never taken back, and little of its work is done twice."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import redis

from worker import jobs, store
from worker.contract.description import describe
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.core.records import Step
from worker.core.search.procedure import carry_out
from worker.embedded import EmbeddedServer
from worker.queue import delivery
from worker.store import keys

EVALUATION = 0.01  # seconds on the clock of these tests
MANY = 1000  # evaluations: more than any of these jobs makes
FEW = 40  # attempts, of which each has to come further


class Killed(Exception):  # noqa: N818 - what it stands for
    """A work-horse that ends here and now."""


@pytest.fixture(scope="module")
def any_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server is enough here: how each server takes the scripts is tested elsewhere."""
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The loop's clock: it stands still, but while an evaluation is made."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(jobs, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace) -> list[int]:
    """The number of each evaluation that is made."""
    made: list[int] = []

    def counted(*args: Any) -> Iterator[Step]:
        for step in carry_out(*args):
            if step.ended is None:
                clock.now += EVALUATION
                made.append(step.evaluations)
            yield step

    monkeypatch.setattr(jobs, "carry_out", counted)
    return made


@pytest.fixture
def submit(client: redis.Redis) -> Callable[[str, str], None]:
    """A job whose line searches and rejected steps are some of its evaluations."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 8))
    y = x @ np.array([3, 0, 0, -2, 0, 0, 0, 1.0]) + 2 * rng.normal(size=40)

    def submit(job_id: str, outer: str) -> None:
        document = {
            "data": {"x": x.tolist(), "y": y.tolist()},
            "training": {"kind": "ridge", "penalty": {"kind": "per_feature", "spread": None}},
            "outer": {"kind": outer, "tolerance": 1e-6, "starts": 2},
        }
        spec = JobSpec.model_validate_json(orjson.dumps(document))
        data = encode_data(spec.problem())
        submission = store.Submission(job_id, orjson.dumps(describe(spec, data)), data, "f", 1e6)
        assert store.run(client, store.submit(submission, delivery(job_id)))

    return submit


def progress(client: redis.Redis, job_id: str) -> tuple[int, int, float]:
    """What a caller sees: iterations, evaluations, seconds."""
    record = store.run(client, store.job(job_id))
    assert record is not None
    seen = orjson.loads(record.progress) if record.progress else {"iteration": 0, "evaluations": 0, "elapsed_s": 0.0}
    return seen["iteration"], seen["evaluations"], seen["elapsed_s"]


def attempt(
    client: redis.Redis, job_id: str, number: int, evaluations: int, made: list[int],
    look: Callable[[], object] = lambda: None, *, inside: bool = False,
) -> bool:  # fmt: skip
    """Claim and run until so many evaluations were made; whether the job has ended.

    `inside`: until two evaluations of an iteration that is under way were made, too: the next attempt begins before
    them. `look` is called after each evaluation.
    """
    last = len(made) + evaluations
    least = 2 if inside else 0

    def interrupted(*args: Any) -> Iterator[Step]:
        unsaved = 0
        for step in counted(*args):
            if step.ended is None and len(made) > last and unsaved >= least:
                raise Killed
            yield step
            look()
            unsaved = unsaved + 1 if step.state is None else 0

    owner, counted = f"o{number}", jobs.carry_out
    claim = store.run(client, store.claim(job_id, owner))
    assert claim is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "carry_out", interrupted)
        try:
            jobs.run_claimed(client, claim)
        except Killed:
            assert store.run(client, store.release(job_id, owner, delivery(job_id), blameless=True))
            return False
    return True


def undisturbed(client: redis.Redis, submit: Callable[[str, str], None], outer: str, made: list[int]) -> dict[str, Any]:
    submit("undisturbed", outer)
    assert attempt(client, "undisturbed", 0, MANY, made)
    found = store.run(client, store.result("undisturbed"))
    assert found is not None
    return dict(orjson.loads(found))


@pytest.mark.parametrize(("outer", "after", "inside"), [("newton", 9, False), ("lbfgs", 9, True)])
def test_progress_never_goes_back(
    client: redis.Redis, submit: Callable[[str, str], None], made: list[int],
    monkeypatch: pytest.MonkeyPatch, outer: str, after: int, inside: bool,
) -> None:  # fmt: skip
    for name in ("BEAT", "SLOWEST", "TELL"):  # everything is told
        monkeypatch.setattr(jobs, name, 0.0)
    expected = undisturbed(client, submit, outer, made)
    submit("j", outer)
    seen = [progress(client, "j")]

    def look() -> None:
        seen.append(progress(client, "j"))
        assert all(before <= now for before, now in zip(*seen[-2:], strict=True))

    number = 1
    while not attempt(client, "j", number, after, made, look, inside=inside):
        number += 1
        assert number < FEW
    look()
    assert number > 2
    result = store.run(client, store.result("j"))
    assert result is not None
    found = orjson.loads(result)
    assert all(found[part] == expected[part] for part in ("hyperparameters", "starts", "counts", "model"))
    assert store.run(client, store.steps("j")) == store.run(client, store.steps("undisturbed"))
    assert seen[-1][1] == found["counts"]["evaluations"]


@pytest.mark.parametrize(("outer", "every"), [("newton", 9), ("lbfgs", 23)])
def test_an_interruption_costs_one_beat(
    client: redis.Redis, submit: Callable[[str, str], None], made: list[int], outer: str, every: int
) -> None:
    expected = undisturbed(client, submit, outer, made)["counts"]["evaluations"]
    states = [orjson.loads(step)["evaluations"] for step in store.run(client, store.steps("undisturbed"))]
    longest = max(after - before for before, after in pairwise(states))
    made.clear()
    submit("j", outer)
    number = 1
    while not attempt(client, "j", number, every, made):
        number += 1
        assert number < FEW
    interruptions = number - 1
    assert interruptions > 2
    assert sorted(set(made)) == list(range(1, expected + 1))
    assert len(made) - expected <= interruptions * (jobs.BEAT / EVALUATION + longest + 1)


def test_a_job_ends_by_the_running_time_of_all_its_attempts(
    client: redis.Redis, submit: Callable[[str, str], None], made: list[int]
) -> None:
    submit("j", "lbfgs")
    client.hset(f"{keys.JOB}j", "seconds", 20 * EVALUATION)
    assert not attempt(client, "j", 1, 8, made)
    assert attempt(client, "j", 2, MANY, made)
    record = store.run(client, store.job("j"))
    assert record is not None
    assert record.stop_reason == "max_seconds"
    assert len(made) <= 20 + 2 + jobs.BEAT / EVALUATION  # what was made since the last beat is not known to the next
    assert 20 * EVALUATION < record.elapsed < 22 * EVALUATION


def test_progress_is_told_more_rarely_than_it_is_saved(
    client: redis.Redis, submit: Callable[[str, str], None], made: list[int]
) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as bell:
        bell.subscribe(store.CHANGED)
        bell.get_message(timeout=5.0)
        undisturbed(client, submit, "lbfgs", made)
        rung = 0
        while bell.get_message(timeout=0.2) is not None:
            rung += 1
    assert 5 < rung <= len(made) * EVALUATION / jobs.TELL + 4  # the submission, the claim, the first point, the end


def test_beats_take_a_small_share_of_the_time(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat to a slow server is followed by a longer pause, but not by too long a one."""
    claim = store.Claim("j", 1, False, b"", b"", None, 0, 0.0, 1e6, "", 0.0, 0.0, "", "")
    for cost, pause in ((0.0001, jobs.BEAT), (0.03, 0.03 / jobs.SHARE), (1.0, jobs.SLOWEST)):
        beats = []

        def slow(client: object, operation: object, cost: float = cost, beats: list[float] = beats) -> store.Verdict:
            clock.now += cost
            beats.append(clock.now)
            return store.Verdict.OK

        monkeypatch.setattr(store, "run", slow)
        loop = jobs.Loop(redis.Redis(), claim, clock.now)
        idle: Any = SimpleNamespace(state=None)
        for _ in range(5000):
            clock.now += 0.001
            loop.report(idle, idle)
        gaps = [after - cost - before for before, after in pairwise(beats)]
        assert len(gaps) > 5
        assert all(pause <= gap < pause + 0.0021 for gap in gaps)


def test_large_checkpoints_are_further_apart(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = store.Claim("j", 1, False, b"", b"", None, 0, 0.0, 1e6, "", 0.0, 0.0, "", "")
    monkeypatch.setattr(store, "run", lambda _client, _operation: store.Verdict.OK)
    for size, pause in ((1000, jobs.BEAT), (600_000, 0.15), (10**7, jobs.SLOWEST)):
        loop = jobs.Loop(redis.Redis(), claim, clock.now)
        monkeypatch.setattr(jobs.checkpoint, "pack", lambda _state, size=size: bytes(size))
        monkeypatch.setattr(jobs, "step_record", lambda *_: {})
        monkeypatch.setattr(jobs, "progress", lambda *_: b"{}")
        step: Any = SimpleNamespace(state=object())
        loop.report(step, step)
        assert loop.beat_at == pytest.approx(clock.now + pause)
