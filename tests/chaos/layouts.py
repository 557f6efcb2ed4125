"""The two ways to run the service: its parts apart, as in production, or all of it under `gradtune serve`."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.calls import Api
from tests.chaos.processes import ROOT, Service, free_port, python
from tests.clock import ScriptClock, ServerClock, server_clock
from worker.embedded import server_binary

COUNTING = Path(__file__).parent / "counting"
SUPERVISORS, WORKERS = 2, 2  # supervisors, and workers of each


@dataclass(frozen=True, slots=True)
class Layout:
    services: list[Service]
    api: Api
    server_url: str
    clock: ScriptClock | ServerClock


def binary(server: str) -> str:
    """The Redis-compatible server. Raises: `RuntimeError` when it is not there."""
    if server == "embedded":
        return server_binary()
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("there is no redis-server on PATH")
    return found


def apart(server: str, data: Path, count: Path, hosts: Mapping[str, tuple[str, str]] | None = None) -> Layout:
    """A server with an append-only file, two APIs, two supervisors of two workers each.

    `hosts` (server, api, worker 1, worker 2): name and address of the network namespace of each.
    """
    key, digest = _key() if hosts else (None, "")
    name_of = {role: host for role, (host, _) in hosts.items()} if hosts else {}
    address_of = {role: address for role, (_, address) in hosts.items()} if hosts else {}
    address = address_of.get("server", "127.0.0.1")
    port = free_port()
    environment = {
        "GRADTUNE_REDIS_URL": f"redis://{address}:{port}/0",
        "GRADTUNE_LOG_LEVEL": "warning",
        "GRADTUNE_API_KEY_HASHES": digest,
    }
    url = environment["GRADTUNE_REDIS_URL"]
    clock = server_clock(count.with_name("clock"), binary(server)) or ScriptClock(url)
    if isinstance(clock, ScriptClock):
        environment |= _changed(CHAOS_CLOCK="1")
    command = [binary(server), "--port", str(port), "--bind", address, "--protected-mode", "no", "--dir", str(data)]
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"]
    services = [Service("server", command, clock.environment, name_of.get("server"))]
    addresses = []
    for number in (1, 2):
        where = (address_of.get("api", "127.0.0.1"), free_port())
        addresses.append(where)
        words = python("service.cli", "api", "--host", where[0], "--port", str(where[1]))
        services.append(Service(f"api {number}", words, environment, name_of.get("api")))
    for number in range(1, SUPERVISORS + 1):
        words = python("service.cli", "worker", "--workers", str(WORKERS))
        counted = {**environment, **_changed(CHAOS_COUNT=str(count))}
        services.append(Service(f"worker {number}", words, counted, name_of.get(f"worker {number}")))
    return Layout(services, Api(addresses, key), url, clock)


def serve(server: str, data: Path, count: Path) -> Layout:
    """Everything under one `gradtune serve`, with its embedded server."""
    if server != "embedded":
        raise RuntimeError("gradtune serve is run with the embedded server")
    port = free_port()
    words = python("service.cli", "serve", "--port", str(port), "--workers", str(SUPERVISORS * WORKERS))
    changed = _changed(CHAOS_COUNT=str(count), CHAOS_CLOCK="1")
    environment = {"GRADTUNE_LOG_LEVEL": "warning", "GRADTUNE_DATA_DIR": str(data), **changed}
    url = f"unix://{data / 'redis' / 'server.sock'}"
    return Layout([Service("serve", words, environment)], Api([("127.0.0.1", port)]), url, ScriptClock(url))


def _key() -> tuple[str, str]:
    """An API key and its hash, made as an operator makes them."""
    made = subprocess.run(python("service.cli", "keys", "create", "--json"), cwd=ROOT, check=True, capture_output=True)
    document = json.loads(made.stdout)
    return document["key"], document["hash"]


def _changed(**how: str) -> dict[str, str]:
    """What makes a part count its evaluations or read the clock of tests."""
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(COUNTING), *([path] if path else [])]), **how}
