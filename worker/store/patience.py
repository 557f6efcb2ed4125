"""How long an operation waits for the store: all that it does has one deadline.

redis-py limits each connect, write and read, and counts the retries of each, one loop inside the other. A server that
accepts connections and answers nothing, or one byte at a time, multiplies these. So retries here end at a deadline that
all loops share, and the sockets of synchronous clients end with it, too; `driver.arun` cancels asynchronous ones.
"""

import asyncio
import math
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Final, TypeVar

import redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from worker.store.trouble import explain

PATIENCE_AT_THE_END: Final = 2.0
"""Seconds for an operation of a process that is about to end."""
_BASE: Final = 0.01
_CAP: Final = 2.0
_SLICE: Final = 1.0
"""Seconds after which a read that goes on looks at its deadline again: a signal may have moved it."""

T = TypeVar("T")


class _Deadline:
    """A time on the monotonic clock, and what has failed before it."""

    __slots__ = ("at", "failure")

    def __init__(self, at: float) -> None:
        self.at = at
        self.failure: Exception | None = None


_deadline: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)
_hurried: list[bool] = []


def left() -> float:
    """Seconds until the deadline of the operation under way; infinite outside of one."""
    deadline = _deadline.get()
    return math.inf if deadline is None else deadline.at - time.monotonic()


class Within:
    """Limits the operation inside to `seconds`, or to what an operation around it has left."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._token: Token[_Deadline | None] | None = None

    def __enter__(self) -> None:
        outer = _deadline.get()
        at = time.monotonic() + (min(self._seconds, PATIENCE_AT_THE_END) if _hurried else self._seconds)
        if outer is None or at < outer.at:
            self._token = _deadline.set(_Deadline(at))

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _deadline.reset(self._token)


def hurry() -> None:
    """Limit operations, also the one under way, to `PATIENCE_AT_THE_END` from now on: the process is about to end.

    Call it in a signal handler of the main thread. It also holds for a work-horse that is forked later.
    """
    _hurried[:] = [True]
    deadline = _deadline.get()
    if deadline is not None:
        deadline.at = min(deadline.at, time.monotonic() + PATIENCE_AT_THE_END)


class _Budget:
    """Seconds for which a request may still wait for the store."""

    __slots__ = ("left",)

    def __init__(self, seconds: float) -> None:
        self.left = seconds


_budget: ContextVar[_Budget | None] = ContextVar("budget", default=None)


def failure() -> Exception | None:
    """The error of the last try of the operation under way."""
    deadline = _deadline.get()
    return None if deadline is None else deadline.failure


@contextmanager
def sharing(seconds: float) -> Iterator[None]:
    """Limit the time that all operations of `arun` inside wait for the store together, in seconds."""
    token = _budget.set(_Budget(seconds))
    try:
        yield
    finally:
        _budget.reset(token)


class Spending(Within):
    """As `Within`, limited to what the request has left."""

    __slots__ = ("_began", "_budget")

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._budget = _budget.get()
        super().__init__(seconds if self._budget is None else min(seconds, self._budget.left))

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self._budget is not None:
            self._budget.left -= time.monotonic() - self._began


# Annotations of redis-py's own methods are too narrow for what it passes: hence Any.
class Patience(Retry):
    """Tries again until the deadline of the operation under way, or for `seconds`; not if that cannot help."""

    __hash__ = Retry.__hash__

    def __init__(self, seconds: float) -> None:
        super().__init__(ExponentialBackoff(cap=_CAP, base=_BASE), sys.maxsize)
        self.seconds = seconds

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """Call `do` until it succeeds. Raises: its last error."""
        if _deadline.get() is None:
            with Within(self.seconds):
                return self.call_with_retry(do, fail, is_retryable, with_failure_count)
        failures = 0
        while True:
            try:
                return do()
            except self._supported_errors as error:
                if not _worth(error, is_retryable):
                    raise
                failures += 1
                fail(error, failures) if with_failure_count else fail(error)
                pause = self._backoff.compute(failures)
                if pause >= left():
                    raise
            time.sleep(pause)


class AsyncPatience(AsyncRetry):
    """As `Patience`, for asynchronous clients."""

    __hash__ = AsyncRetry.__hash__

    def __init__(self, seconds: float) -> None:
        super().__init__(ExponentialBackoff(cap=_CAP, base=_BASE), sys.maxsize)
        self.seconds = seconds

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[T]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """Call `do` until it succeeds. Raises: its last error."""
        if _deadline.get() is None:
            with Within(self.seconds):
                return await self.call_with_retry(do, fail, is_retryable, with_failure_count)
        failures = 0
        while True:
            try:
                return await do()
            except self._supported_errors as error:
                if not _worth(error, is_retryable):
                    raise
                failures += 1
                _remember(error)
                await (fail(error, failures) if with_failure_count else fail(error))
                pause = self._backoff.compute(failures)
                if pause >= left():
                    raise
            await asyncio.sleep(pause)


def _remember(error: Exception) -> None:
    deadline = _deadline.get()
    if deadline is not None:
        deadline.failure = error


def _worth(error: Exception, is_retryable: Callable[[Exception], bool] | None) -> bool:
    return (is_retryable is None or is_retryable(error)) and not explain(error).permanent


class _Socket:
    """A socket whose reads all end at the deadline of the operation."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._wanted = self._set = inner.gettimeout()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def settimeout(self, seconds: float | None) -> None:
        """Limit each call that follows."""
        self._wanted = seconds

    def recv(self, size: int) -> bytes:
        """Read what is there. Raises: `TimeoutError`."""
        if self._wanted == 0:
            self._limit(0.0)
            return self._inner.recv(size)
        end = math.inf if self._wanted is None else time.monotonic() + self._wanted
        while (rest := min(end - time.monotonic(), left())) > 0:
            self._limit(min(rest, _SLICE))
            try:
                return self._inner.recv(size)
            except TimeoutError:
                continue
        raise TimeoutError("the deadline is over")

    def sendall(self, data: bytes) -> None:
        """Write everything. Raises: `TimeoutError`."""
        rest = min(math.inf if self._wanted is None else self._wanted, left())
        if rest <= 0:
            raise TimeoutError("the deadline is over")
        self._limit(None if rest == math.inf else rest)
        self._inner.sendall(data)

    def _limit(self, seconds: float | None) -> None:
        if seconds != self._set:
            self._inner.settimeout(seconds)
            self._set = seconds


class _Bounded:
    """Connects before the deadline, with a socket that keeps the deadline."""

    def _connect(self: Any) -> Any:
        own = self.socket_connect_timeout, self.socket_timeout
        rest = left()
        if rest <= 0:
            raise redis.TimeoutError("the deadline is over")
        # The handshake of TLS has the second.
        self.socket_connect_timeout, self.socket_timeout = (min(limit or math.inf, rest) for limit in own)
        try:
            made = super()._connect()  # type: ignore[misc]
        except TimeoutError:  # redis-py stumbles over it where the socket is a unix one
            raise redis.TimeoutError("Timeout connecting to server") from None
        finally:
            self.socket_connect_timeout, self.socket_timeout = own
        bounded = _Socket(made)
        bounded.settimeout(self.socket_timeout)
        return bounded


class _TCP(_Bounded, Connection): ...


class _TLS(_Bounded, SSLConnection): ...


class _Unix(_Bounded, UnixDomainSocketConnection): ...


BOUNDED: Final[dict[type[Any], type[Any]]] = {
    Connection: _TCP,
    SSLConnection: _TLS,
    UnixDomainSocketConnection: _Unix,
}


def patience(client: redis.Redis | redis.asyncio.Redis) -> float:
    """Seconds for which this client goes on trying; infinite for one that was not made by `connect`."""
    return float(getattr(client.get_retry(), "seconds", math.inf))
