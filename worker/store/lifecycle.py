"""The lifecycle of a job as data: its states, the legal moves between them, and the same table for the Lua scripts."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Status(StrEnum):
    """The state of a job, as users see it."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


MOVES: Final[Mapping[Status, frozenset[Status]]] = MappingProxyType(
    {
        # A queued job that was interrupted keeps a checkpoint: cancelling it hands out the best so far first.
        Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLING, Status.CANCELLED, Status.EXPIRED}),
        # To QUEUED when its worker is lost.
        Status.RUNNING: frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLING, Status.QUEUED}),
        # A job that reaches its end before it notices the cancellation has succeeded.
        Status.CANCELLING: frozenset({Status.CANCELLED, Status.SUCCEEDED, Status.FAILED}),
        Status.SUCCEEDED: frozenset(),
        Status.FAILED: frozenset(),
        Status.CANCELLED: frozenset(),
        Status.EXPIRED: frozenset(),
    }
)

TERMINAL: Final[frozenset[Status]] = frozenset(status for status, targets in MOVES.items() if not targets)


class IllegalMoveError(Exception):
    """A move that the lifecycle table does not allow. It is a bug of the caller, never a race."""


ILLEGAL_MOVE: Final = "illegal move"
"""Marks the scripts' error, so that the driver can raise `IllegalMoveError`."""


def lua_tables() -> str:
    """Return the table as Lua source: `MOVES[from][to]` and `TERMINAL[status]`."""

    def table(statuses: frozenset[Status]) -> str:
        return "{" + ", ".join(f"{status} = true" for status in sorted(statuses)) + "}"

    moves = ", ".join(f"{status} = {table(targets)}" for status, targets in MOVES.items())
    return f"local MOVES = {{{moves}}}\nlocal TERMINAL = {table(TERMINAL)}\n"
