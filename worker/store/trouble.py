"""What is wrong with the server, in a sentence with its remedy, from the errors that redis-py raises.

No sentence has an address, a user or a password: `/readyz` shows them to everybody.
"""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final, NamedTuple

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    ResponseError,
)


class RefusedError(redis.ConnectionError):
    """The server takes no writes at the moment: its disk or its memory is full, it is a replica, or it lacks a replica.

    The server checks this before the first write of a script, so nothing was changed. It is treated as an outage.
    """


class NoAnswerError(redis.TimeoutError):
    """The server has not answered in the time of the operation. The operation may have had its effect.

    The cause is the error of an earlier try, if there was one.
    """


class Trouble(NamedTuple):
    """A sentence; `permanent`: trying again cannot help before an operator changes something."""

    sentence: str
    permanent: bool


SILENT: Final = (
    "The job store gives no answer in time: see whether its process hangs, and the network and the name server on the "
    "way to it."
)
CLOSED: Final = (
    "The job store closes connections before it answers: see its log. If it speaks TLS at this port, write rediss:// "
    "in GRADTUNE_REDIS_URL."
)
TLS_HERE: Final = "The job store speaks TLS at this port: write rediss:// instead of redis:// in GRADTUNE_REDIS_URL."
CLUSTER: Final = "The job store is a Redis Cluster; use one server, or one with replicas."
FULL: Final = (
    "The memory of the job store is full: raise `maxmemory` (GRADTUNE_STORE_MEMORY_MB for the embedded one), or delete "
    "ended jobs."
)
LOADING: Final = "The job store is still reading its file after a start: wait."
REPLICA: Final = "The job store is a replica, which takes no writes: name the address of its primary."

# What the text of an answer says, the first that fits. Servers before Redis 7 only quote codes in errors of scripts.
_ANSWERS: Final = tuple(
    (re.compile(pattern), Trouble(sentence, permanent))
    for pattern, sentence, permanent in (
        (
            r"without any password configured|no password is set",
            "GRADTUNE_REDIS_URL has a password and the job store has none: leave it out, or set `requirepass`.",
            True,
        ),
        (
            r"[Aa]uthentication required|unauthenticated",
            (
                "The job store wants a password: write redis://:PASSWORD@HOST or redis://USER:PASSWORD@HOST in "
                "GRADTUNE_REDIS_URL."
            ),
            True,
        ),
        (
            r"DB index|invalid DB|Invalid Database",
            (
                "The job store has no database of the number in GRADTUNE_REDIS_URL: its setting `databases` says how "
                "many there are, and they count from 0."
            ),
            True,
        ),
        (r"(?i)cluster|hash slot|same slot|^\d+ \S+:\d+$", CLUSTER, True),
        (
            r"DENIED|protected mode",
            (
                "The job store runs in protected mode, which refuses other machines: give it a password and write that "
                "into GRADTUNE_REDIS_URL."
            ),
            True,
        ),
        (
            r"max number of clients",
            "The job store has as many clients as it takes: raise its `maxclients`.",
            False,
        ),
        (r"BUSY", "A script of somebody else keeps the job store busy: end it (SCRIPT KILL).", False),
        (r"READONLY|read.only replica", REPLICA, False),
        (
            r"MISCONF",
            "The job store cannot write its file and takes no writes: make room on its disk, and see its log.",
            False,
        ),
        (r"OOM|maxmemory", FULL, False),
        (
            r"NOREPLICAS|enough good replicas|MASTERDOWN|[Ll]ink with MASTER",
            "The job store takes no writes without its replicas or its primary: see their logs.",
            False,
        ),
    )
)
_ERRNOS: Final = {
    errno.ECONNREFUSED: "Nothing listens at the address of the job store: start the server, or correct "
    "GRADTUNE_REDIS_URL.",
    errno.ENOENT: "The job store has no socket at the path in GRADTUNE_REDIS_URL: start the server, or correct the "
    "path.",
    errno.EACCES: "The socket of the job store may not be opened by this user: see its mode (`unixsocketperm`) and "
    "its directory.",
    errno.EHOSTUNREACH: "There is no way to the host of the job store: see the network and its firewalls.",
    errno.ENETUNREACH: "There is no way to the host of the job store: see the network and its firewalls.",
    errno.EAGAIN: SILENT,  # the queue of a unix socket is full
}
NO_TLS_HERE: Final = (
    "The job store does not speak TLS at this port: write redis:// instead of rediss:// in GRADTUNE_REDIS_URL, or name "
    "its TLS port."
)
_CLIENT: Final = (
    "The job store wants a certificate of its clients: name it with ?ssl_certfile=FILE&ssl_keyfile=FILE in "
    "GRADTUNE_REDIS_URL."
)


def explain(error: BaseException) -> Trouble:
    """The trouble that an error of redis-py means, for the operators of the server."""
    if isinstance(error, NoAnswerError) and error.__cause__ is not None:
        return explain(error.__cause__)
    chain = tuple(_chain(error))
    known = _broken_off(chain) or _answered(error) or _network(error, chain)
    return known or Trouble("The job store gives an answer that is not understood; the log has it.", permanent=False)


def _broken_off(chain: tuple[BaseException, ...]) -> Trouble | None:
    """The trouble of a connection that failed before the server could answer."""
    for link in chain:
        if isinstance(link, ssl.SSLError):
            return _tls(link)
        if isinstance(link, socket.gaierror):
            sentence = (
                "The name of the job store's host cannot be resolved: correct GRADTUNE_REDIS_URL, or see the name "
                "server."
            )
            return Trouble(sentence, permanent=False)
    return None


def _network(error: BaseException, chain: tuple[BaseException, ...]) -> Trouble | None:
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return Trouble(SILENT, permanent=False)
    for link in chain:
        if isinstance(link, OSError) and link.errno in _ERRNOS:
            return Trouble(_ERRNOS[link.errno], permanent=False)
    if isinstance(error, redis.ConnectionError | OSError | EOFError):
        return Trouble(CLOSED, permanent=False)
    return None


def _answered(error: BaseException) -> Trouble | None:
    """The trouble that an answer of the server means."""
    text = str(error)
    if isinstance(error, NoPermissionError) or re.search(r"NOPERM|ACL failure|executing the script can't", text):
        return _rights(text)
    if isinstance(error, InvalidResponse):
        return Trouble("What answers at the address in GRADTUNE_REDIS_URL is no Redis server.", permanent=True)
    if isinstance(error, BusyLoadingError):
        return Trouble(LOADING, permanent=False)
    if isinstance(error, redis.RedisError):
        for pattern, trouble in _ANSWERS:
            if (isinstance(error, ResponseError | RefusedError) or _said(error)) and pattern.search(text):
                return trouble
    if isinstance(error, AuthenticationError | AuthorizationError):
        return Trouble(
            "The job store refuses the user or the password in GRADTUNE_REDIS_URL: correct them; characters such as "
            "@ : / # % are written percent-encoded.",
            permanent=True,
        )
    return None


def _said(error: redis.RedisError) -> bool:
    """Whether a connection error is an answer of the server, and not one of the network."""
    return isinstance(error, AuthenticationError) or getattr(error, "status_code", None) is not None


def _rights(text: str) -> Trouble:
    # Not who it is: "User NAME has no permissions to ...", "this user has ...".
    what = re.search(r"(?i)no permissions to (run the '[^']+' command|access [a-z ]+)", text)
    lacks = f" (it may not {what[1].strip()})" if what else ""
    return Trouble(
        f"The user in GRADTUNE_REDIS_URL lacks a right in the job store{lacks}: docs/redis.md lists what it needs.",
        permanent=True,
    )


def _tls(error: ssl.SSLError) -> Trouble:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Trouble(
            f"The certificate of the job store cannot be verified ({error.verify_message.rstrip('.')}): name its "
            "authority with ?ssl_ca_certs=FILE in GRADTUNE_REDIS_URL, and the host as the certificate does.",
            permanent=True,
        )
    if isinstance(error, ssl.SSLEOFError):
        return Trouble(
            "The job store ends the TLS handshake: see its log. If it speaks no TLS at this port, write redis:// in "
            "GRADTUNE_REDIS_URL.",
            permanent=False,
        )
    reason = error.reason or ""
    if reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}:
        return Trouble(NO_TLS_HERE, permanent=True)
    if "CERTIFICATE_REQUIRED" in reason or reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":
        return Trouble(_CLIENT, permanent=True)
    why = reason.replace("_", " ").lower() or "no reason is known"
    return Trouble(
        f"The TLS connection to the job store fails ({why}): see the ssl_ options in GRADTUNE_REDIS_URL and the "
        "server's tls- settings.",
        # Others are those of a connection that breaks.
        permanent="ALERT" in reason or "PROTOCOL" in reason or error.library in {"X509", "PEM"},
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, which redis-py keeps only as context."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
