import json
import re
import zlib
from collections.abc import Callable

import redis
import rq
from rq.job import Job
from rq.serializers import JSONSerializer

from worker import store
from worker.queue import JOB, delivery
from worker.store import keys

Submit = Callable[..., store.Admission]
TIME = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+Z")


def snapshot(client: redis.Redis) -> dict[bytes, object]:
    """Everything that RQ has in the server, but for the times."""
    found: dict[bytes, object] = {}
    for key in client.keys("rq:*"):
        kind = client.type(key)
        if kind == b"hash":
            found[key] = {name: TIME.sub(b"now", value) for name, value in client.hgetall(key).items()}
        elif kind == b"list":
            found[key] = client.lrange(key, 0, -1)
        else:
            found[key] = client.smembers(key)
    return found


def test_the_names_of_the_keys_are_those_of_rq(client: redis.Redis) -> None:
    queue = rq.Queue(store.QUEUE, connection=client, serializer=JSONSerializer)
    worker = rq.Worker([queue], connection=client)
    worker.register_birth()
    assert queue.key == keys.QUEUE_LIST
    assert queue.intermediate_queue_key == keys.INTERMEDIATE_LIST
    assert Job.key_for("x") == f"{keys.RQ_JOB}x"
    assert client.smembers(keys.RQ_WORKERS) == {worker.key.encode()}


def test_a_recorded_delivery_is_what_rq_writes(client: redis.Redis, submit: Submit) -> None:
    queue = rq.Queue(store.QUEUE, connection=client, serializer=JSONSerializer)
    options = {"timeout": -1, "result_ttl": 0, "failure_ttl": 3600, "description": "j", "job_id": "j"}
    for at_front in (False, True):
        client.flushall()
        client.rpush(queue.key, "other")
        queue.enqueue_call(JOB, args=("j",), at_front=at_front, **options)
        wanted = snapshot(client)
        client.flushall()
        client.rpush(queue.key, "other")
        for command in delivery("j", at_front=at_front):
            client.execute_command(*command)
        assert snapshot(client) == wanted
        client.flushall()
        client.rpush(queue.key, "other")
        job = store.Submission("j", b"{}", b"", "f", 1.0)
        assert store.run(client, store.submit(job, delivery("j", at_front=at_front)))
        assert snapshot(client) == wanted


def test_a_delivery_needs_no_server() -> None:
    commands = delivery("job_1")
    assert [command[0] for command in commands] == ["SADD", "HSET", "HSET", "RPUSH"]
    saved = dict(zip(commands[2][2::2], commands[2][3::2], strict=True))
    assert json.loads(zlib.decompress(saved["data"])) == [JOB, None, ["job_1"], {}]
