"""Running an operation on a synchronous or an asynchronous client.

An operation is a generator: it yields batches of commands and is sent their replies, so it knows no client. A batch of
one command is sent alone, a longer one as one MULTI/EXEC. A driver may send a batch again if the reply was lost: every
operation of the store may be repeated. A driver also repeats a batch if the server takes no writes at the moment. The
client's patience is a limit for the whole operation: connections, batches, repetitions and pauses.
"""

import asyncio
import re
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from worker.store.lifecycle import ILLEGAL_MOVE, IllegalMoveError
from worker.store.outage import answered, note
from worker.store.patience import AsyncPatience, Patience, Spending, Within, failure, left, patience
from worker.store.trouble import NoAnswerError, RefusedError, explain

Argument = bytes | str | int | float
Command = tuple[Argument, ...]
Batch = tuple[Command, ...]

T = TypeVar("T")
Operation = Generator[Batch, list[Any], T]


_CODES: Final = re.compile(r"\b(MISCONF|READONLY|NOREPLICAS|MASTERDOWN|OOM)\b")
# For some of them redis-py has a class, and removes the code from the message.
_CLASSES: Final = (redis.ReadOnlyError, redis.OutOfMemoryError, redis.exceptions.MasterDownError)


def run(client: redis.Redis, operation: Operation[T]) -> T:
    """Run an operation to its end.

    Raises: `RedisError` when the server cannot be reached, `RefusedError` when it takes no writes, `IllegalMoveError`.
    """
    try:
        with Within(patience(client)):
            outcome = _drive(client, operation)
    except RedisError as error:
        _look_at(client, error)
        raise
    answered()
    return outcome


async def arun(client: redis.asyncio.Redis, operation: Operation[T]) -> T:
    """Run an operation to its end, as `run` does. Inside `sharing`, it may take the time that is left there.

    Raises: `NoAnswerError` at the deadline, and what `run` raises.
    """
    try:
        with Spending(patience(client)):
            try:
                async with asyncio.timeout(left()):
                    outcome = await _adrive(client, operation)
            except TimeoutError:
                raise NoAnswerError("no answer in time") from failure()
    except RedisError as error:
        _look_at(client, error)
        raise
    answered()
    return outcome


def _drive(client: redis.Redis, operation: Operation[T]) -> T:
    try:
        batch = next(operation)
        while True:
            batch = operation.send(_execute(client, batch))
    except StopIteration as stop:
        return cast("T", stop.value)


async def _adrive(client: redis.asyncio.Redis, operation: Operation[T]) -> T:
    try:
        batch = next(operation)
        while True:
            batch = operation.send(await _aexecute(client, batch))
    except StopIteration as stop:
        return cast("T", stop.value)


def _look_at(client: redis.Redis | redis.asyncio.Redis, error: RedisError) -> None:
    """Log that the server is away. Raises: `IllegalMoveError` for an answer that is our own.

    Other errors are left to the caller, who may expect them.
    """
    if isinstance(error, ResponseError):
        if ILLEGAL_MOVE in str(error):
            raise IllegalMoveError(str(error)) from error
    elif not explain(error).permanent:
        note(client, error)


def _refused(error: Exception) -> bool:
    """Whether an error says that the server takes no writes. Before Redis 7, errors of scripts only quote the code."""
    if not isinstance(error, ResponseError):
        return False
    return isinstance(error, _CLASSES) or _CODES.search(str(error)) is not None


def _again(retry: Retry | AsyncRetry) -> Callable[[Exception], bool] | None:
    """What is tried again here; with patience, also what redis-py gives up at once: a new connection that is closed."""
    return None if isinstance(retry, Patience | AsyncPatience) else lambda error: isinstance(error, RefusedError)


# `execute_command` and `get_retry` of redis-py have no annotations: hence Any.
def _execute(client: Any, batch: Batch) -> list[Any]:
    def send() -> list[Any]:
        try:
            return _send(client, batch)
        except ResponseError as error:
            if _refused(error):
                raise RefusedError(str(error)) from error
            raise

    retry: Retry = client.get_retry() or Retry(NoBackoff(), 0)
    return retry.call_with_retry(send, lambda _: None, is_retryable=_again(retry))


async def _aexecute(client: Any, batch: Batch) -> list[Any]:
    async def send() -> list[Any]:
        try:
            return await _asend(client, batch)
        except ResponseError as error:
            if _refused(error):
                raise RefusedError(str(error)) from error
            raise

    async def ignore(_: Exception) -> None:
        """Do nothing before the next try."""

    retry: AsyncRetry = client.get_retry() or AsyncRetry(NoBackoff(), 0)
    return await retry.call_with_retry(send, ignore, is_retryable=_again(retry))


def _send(client: Any, batch: Batch) -> list[Any]:
    if len(batch) == 1:
        return [client.execute_command(*batch[0])]
    with client.pipeline(transaction=True) as pipeline:
        for command in batch:
            pipeline.execute_command(*command)
        return list(pipeline.execute())


async def _asend(client: Any, batch: Batch) -> list[Any]:
    if len(batch) == 1:
        return [await client.execute_command(*batch[0])]
    async with client.pipeline(transaction=True) as pipeline:
        for command in batch:
            pipeline.execute_command(*command)
        return list(await pipeline.execute())
