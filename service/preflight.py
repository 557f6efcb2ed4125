"""What the job store's own settings promise: whether the service may start on it, what its operators should know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from service.settings import ConfigurationError
from worker import store

OLDEST = (6, 2)  # LMOVE and ZRANDMEMBER
PATIENCE = 5.0  # seconds for the answer; a server that comes up later is no reason not to start

log = logging.getLogger(__name__)


class Findings(NamedTuple):
    """Sentences with their remedies: what forbids a start, and what does not."""

    refusals: list[str]
    warnings: list[str]


def require_store(url: str) -> None:
    """Log warnings about the server at `url`. Raises: `ConfigurationError` when jobs would be lost on it."""
    try:
        findings = asyncio.run(asyncio.wait_for(examine_at(url), PATIENCE))
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("The job store cannot be reached yet: %s", error or "no answer")
        return
    for warning in findings.warnings:
        log.warning(warning)
    if findings.refusals:
        raise ConfigurationError(" ".join(findings.refusals))


async def examine_at(url: str) -> Findings:
    """Ask the server at `url` for its settings. Raises: `RedisError` when it cannot be reached."""
    client = store.aconnect(url)
    try:
        return await examine(client)
    finally:
        await client.aclose()


async def examine(client: redis.asyncio.Redis) -> Findings:
    """Ask the server for its settings. Raises: `RedisError` when it cannot be reached."""
    try:
        info = await store.arun(client, store.server_info())
    except ResponseError:
        hidden = "The job store does not let its settings be read (INFO): see that it is persistent and evicts no keys."
        return Findings([], [hidden])
    findings = Findings([], [])
    judge(info, findings)
    if not info.get("aof_enabled") and not info.get("loading"):  # it is not while the file is read
        findings.warnings.append(await _without_log(client))
    return findings


def judge(info: Mapping[str, Any], findings: Findings) -> None:
    """Add what follows from what the server says about itself; what it does not say is taken to be well."""
    _judge_kind(info, findings)
    _judge_memory(info, findings)


def _judge_kind(info: Mapping[str, Any], findings: Findings) -> None:
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        findings.refusals.append(f"The job store is Redis {version}; use Redis 6.2 or newer, or Valkey.")
    if info.get("cluster_enabled"):
        findings.refusals.append("The job store is a Redis Cluster; use one server, or one with replicas.")
    if info.get("role") == "slave":
        findings.warnings.append("The job store is a replica, which takes no writes: name the address of its primary.")


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
