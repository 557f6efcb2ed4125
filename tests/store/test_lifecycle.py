import pytest
import redis

from worker import store
from worker.store import MOVES, TERMINAL, Status
from worker.store.prelude import PRELUDE


def test_the_terminal_states_are_those_without_a_way_out() -> None:
    assert {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED} == TERMINAL
    assert set(MOVES) == set(Status)


@pytest.mark.parametrize("start", Status)
@pytest.mark.parametrize("end", Status)
def test_the_scripts_allow_exactly_the_moves_of_the_table(client: redis.Redis, start: Status, end: Status) -> None:
    client.hset("gradtune:job:x", "status", start.value)
    operation = _move("x", end)
    if end in MOVES[start]:
        assert store.run(client, operation) == [None]
        assert client.hget("gradtune:job:x", "status") == end.value.encode()
    else:
        with pytest.raises(store.IllegalMoveError, match=f"{start} -> {end}"):
            store.run(client, operation)
        assert client.hget("gradtune:job:x", "status") == start.value.encode()


def _move(job_id: str, end: Status) -> store.Operation[list[None]]:
    return (yield (("EVAL", PRELUDE + "move(ARGV[1], ARGV[2])", 0, job_id, end.value),))
