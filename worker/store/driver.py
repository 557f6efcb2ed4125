"""Running an operation on a synchronous or an asynchronous client.

An operation is a generator: it yields batches of commands and is sent their replies, so it knows no client. A batch of
one command is sent alone, a longer one as one MULTI/EXEC. A driver may send a batch again when the reply was lost:
every operation of the store is safe under that.
"""

from collections.abc import Generator
from typing import Any, TypeVar, cast

import redis
import redis.asyncio
from redis.exceptions import ResponseError

from worker.store.lifecycle import ILLEGAL_MOVE, IllegalMoveError

Argument = bytes | str | int | float
Command = tuple[Argument, ...]
Batch = tuple[Command, ...]

T = TypeVar("T")
Operation = Generator[Batch, list[Any], T]


def run(client: redis.Redis, operation: Operation[T]) -> T:
    """Run an operation to its end.

    Raises: `RedisError` when the server cannot be reached or refuses, `IllegalMoveError`.
    """
    try:
        batch = next(operation)
        while True:
            batch = operation.send(_execute(client, batch))
    except StopIteration as stop:
        return cast("T", stop.value)
    except ResponseError as error:
        if ILLEGAL_MOVE in str(error):
            raise IllegalMoveError(str(error)) from error
        raise


async def arun(client: redis.asyncio.Redis, operation: Operation[T]) -> T:
    """Run an operation to its end; as `run`."""
    try:
        batch = next(operation)
        while True:
            batch = operation.send(await _aexecute(client, batch))
    except StopIteration as stop:
        return cast("T", stop.value)
    except ResponseError as error:
        if ILLEGAL_MOVE in str(error):
            raise IllegalMoveError(str(error)) from error
        raise


# `execute_command` of redis-py has no annotations: hence Any.
def _execute(client: Any, batch: Batch) -> list[Any]:
    if len(batch) == 1:
        return [client.execute_command(*batch[0])]
    with client.pipeline(transaction=True) as pipeline:
        for command in batch:
            pipeline.execute_command(*command)
        return list(pipeline.execute())


async def _aexecute(client: Any, batch: Batch) -> list[Any]:
    if len(batch) == 1:
        return [await client.execute_command(*batch[0])]
    async with client.pipeline(transaction=True) as pipeline:
        for command in batch:
            pipeline.execute_command(*command)
        return list(await pipeline.execute())
