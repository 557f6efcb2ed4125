"""What the job store's own settings promise: whether the service may start on it, what its operators should know."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

import redis.asyncio
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from service.settings import ConfigurationError
from worker import store
from worker.store import Trouble

OLDEST = (6, 2)  # LMOVE and ZRANDMEMBER
PATIENCE = 5.0  # seconds for the answer; a server that comes up later is no reason not to start
HANDSHAKE = 0.5  # seconds in which a server shows what it speaks
PORT = 6379

log = logging.getLogger(__name__)


class Findings(NamedTuple):
    """Sentences with their remedies: what forbids a start, what does not, and with what no job can run now."""

    refusals: list[str]
    warnings: list[str]
    unusable: list[str]


def require_store(url: str) -> None:
    """Log warnings about the server at `url`.

    Raises: `ConfigurationError` when it cannot be used before something is changed, or when jobs would be lost on it.
    """
    try:
        findings = asyncio.run(_examined(url))
    except (RedisError, OSError, TimeoutError) as error:
        trouble = asyncio.run(diagnose(url, error))
        if trouble.permanent:
            raise ConfigurationError(trouble.sentence) from None
        if not isinstance(error, RedisError):  # all of it took too long
            log.warning("The job store cannot be used now: %s It is asked again.", trouble.sentence)
        return
    for warning in findings.warnings:
        log.warning(warning)
    if findings.refusals:
        raise ConfigurationError(" ".join(findings.refusals))


async def _examined(url: str) -> Findings:
    return await asyncio.wait_for(examine_at(url), PATIENCE)


async def diagnose(url: str, error: Exception) -> Trouble:
    """What is wrong with the server at `url`. What one that hangs up, or says nothing to TLS, speaks is tried."""
    trouble = store.explain(error)
    parts = urlsplit(url)
    if parts.scheme == "redis" and trouble.sentence == store.CLOSED:
        if (said := await _said(parts, b"")).startswith(b"-"):
            return store.explain(ResponseError(said[1:].decode(errors="replace").strip()))
        if await _speaks_tls(parts):
            return Trouble(store.TLS_HERE, permanent=True)
    elif parts.scheme == "rediss" and not trouble.permanent and (await _said(parts, b"PING\r\n"))[:1] in {b"+", b"-"}:
        return Trouble(store.NO_TLS_HERE, permanent=True)
    return trouble


async def _said(parts: SplitResult, question: bytes) -> bytes:
    """The first that the server says without TLS, to nothing or to a question; empty: nothing."""
    writer = None
    try:
        async with asyncio.timeout(HANDSHAKE):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or PORT)
            writer.write(question)
            return await reader.read(512)
    except (OSError, TimeoutError):
        return b""
    finally:
        if writer is not None:
            writer.transport.abort()


async def _speaks_tls(parts: SplitResult) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    try:
        async with asyncio.timeout(HANDSHAKE):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or PORT, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True


async def examine_at(url: str) -> Findings:
    """Ask the server at `url` for its settings. Raises: `RedisError` when it cannot be used."""
    client = store.aconnect(url)
    try:
        return await examine(client)
    except ResponseError as error:
        if not store.explain(error).permanent:  # which ends the start
            store.note(client, error)
        raise
    finally:
        await client.aclose()


async def examine(client: redis.asyncio.Redis) -> Findings:
    """Ask the server for its settings, and for what jobs need. Raises: `RedisError` when it cannot be used."""
    findings = Findings([], [], [])
    await _ask(client, findings)
    if findings.unusable:
        return findings  # the trial would say so less well
    try:
        await store.arun(client, store.trial())
    except store.RefusedError as error:
        sentence = store.explain(error).sentence
        findings.warnings.append(sentence)
        findings.unusable.append(sentence)
    return findings


async def _ask(client: redis.asyncio.Redis, findings: Findings) -> None:
    try:
        info = await store.arun(client, store.server_info())
    except ResponseError as error:
        if store.explain(error).permanent and not isinstance(error, NoPermissionError):
            raise
        hidden = "The job store does not let its settings be read (INFO): see that it is persistent and evicts no keys."
        findings.warnings.append(hidden)
        return
    judge(info, findings)
    if not info.get("aof_enabled") and not info.get("loading"):  # it is not while the file is read
        findings.warnings.append(await _without_log(client))


def judge(info: Mapping[str, Any], findings: Findings) -> None:
    """Add what follows from what the server says about itself; what it does not say is taken to be well."""
    _judge_kind(info, findings)
    _judge_memory(info, findings)


def _judge_kind(info: Mapping[str, Any], findings: Findings) -> None:
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        old = f"The job store is Redis {version}; use Redis 6.2 or newer, or Valkey."
        findings.refusals.append(old)
        findings.unusable.append(old)
    if info.get("cluster_enabled"):
        findings.refusals.append(store.CLUSTER)
        findings.unusable.append(store.CLUSTER)
    if info.get("loading"):
        findings.warnings.append(store.LOADING)
        findings.unusable.append(store.LOADING)
    if info.get("role") == "slave":  # for the time of a failover, perhaps
        findings.warnings.append(store.REPLICA)
        findings.unusable.append(store.REPLICA)


def _judge_memory(info: Mapping[str, Any], findings: Findings) -> None:
    if not info.get("maxmemory"):
        return
    policy = str(info.get("maxmemory_policy", "unknown"))
    remedy = "Set `maxmemory-policy noeviction`, in its configuration file too."
    if policy.startswith("allkeys"):
        findings.refusals.append(
            f"The job store deletes keys when its memory is full (maxmemory-policy {policy}), jobs among them. {remedy}"
        )
    elif policy != "noeviction":
        findings.warnings.append(
            "When its memory is full, the job store deletes ended jobs before their time and forgets live workers "
            f"(maxmemory-policy {policy}). {remedy}"
        )


async def _without_log(client: redis.asyncio.Redis) -> str:
    """What is lost without an append-only file; that there are no snapshots either, only CONFIG tells."""
    remedy = "Set `appendonly yes`."
    try:
        snapshots = await store.arun(client, store.snapshots())
    except ResponseError:
        return f"The job store keeps no append-only file: what happened last is lost with its process. {remedy}"
    if snapshots:
        return f"The job store keeps snapshots only: what came after the last one is lost with its process. {remedy}"
    return f"The job store keeps nothing on disk: every job is lost with its process. {remedy}"
