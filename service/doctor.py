"""What `gradtune doctor` looks at: the job store, the storage of datasets and the versions; what `--repair` does."""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from redis.exceptions import RedisError

from service.preflight import PATIENCE, diagnose, examine_at
from service.settings import Settings
from worker import mending, store
from worker.datasets import StorageError, open_storage
from worker.embedded import EmbeddedServer, ServerError, server_binary

LITTLE: Final = 1 << 30  # bytes; with less free room a warning is due
_LIBRARIES: Final = ("numpy", "scipy", "redis", "rq", "fastapi", "pyarrow")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, and a sentence about it."""

    name: str
    status: Literal["ok", "warning", "wrong"]
    detail: str


def checks(settings: Settings) -> Iterator[Check]:
    """Look at everything, one after the other."""
    yield from _versions()
    yield from _storage(settings)
    if settings.redis_url is None:
        yield from _embedded(settings.data_dir)
    else:
        yield from _store(settings.redis_url)


def repair(data_dir: Path) -> Iterator[Check]:
    """Mend the embedded server's files, and start it once to see that it does."""
    embedded = EmbeddedServer(data_dir)
    if not embedded.directory.is_dir():
        yield Check("append-only file", "ok", f"{embedded.directory} does not exist: there is nothing to repair.")
        return
    try:
        with embedded.held() as directory:
            while (damage := mending.examine(directory, server_binary())) is not None:
                if not damage.mendable:
                    yield Check("append-only file", "wrong", f"{damage.sentence} {mending.remedy(damage)}")
                    return
                kept = " and ".join(map(str, mending.mend(damage)))
                yield Check("append-only file", "ok", f"Mended: {damage.sentence} Kept: {kept or 'all of it, in use'}.")
        with embedded, store.connect(embedded.url) as client:
            health = store.run(client, store.health())
        yield Check("store", "ok", f"The embedded server starts; {health.active} of its jobs have not ended.")
    except (ServerError, RedisError, OSError) as error:
        yield Check("store", "wrong", str(error))


def _versions() -> Iterator[Check]:
    libraries = []
    for name in ("gradtune", *_LIBRARIES):
        with suppress(importlib.metadata.PackageNotFoundError):
            libraries.append(f"{name} {importlib.metadata.version(name)}")
    yield Check("versions", "ok", f"Python {platform.python_version()}, {', '.join(libraries)}")


def _storage(settings: Settings) -> Iterator[Check]:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=settings.data_dir, prefix="doctor-") as file:
            file.write(bytes(4096))
            file.flush()
        free = shutil.disk_usage(settings.data_dir).free
    except OSError as error:
        remedy = "Give the user of the service the right to write there, make room, or choose another --data-dir."
        yield Check("data directory", "wrong", f"{settings.data_dir} cannot be written: {error}. {remedy}")
        return
    room = f"{settings.data_dir} can be written; {free / 2**30:.1f} GiB are free"
    yield Check("data directory", "ok" if free >= LITTLE else "warning", room)
    try:
        storage = open_storage(settings.storage_url, settings.data_dir, settings.cache_mb)
        number = sum(1 for _ in storage.ids())
    except (StorageError, OSError) as error:
        yield Check("storage", "wrong", f"The storage of datasets cannot be read: {error}")
        return
    yield Check("storage", "ok", f"{number} datasets in {settings.storage_url or settings.data_dir / 'datasets'}")


def _embedded(data_dir: Path) -> Iterator[Check]:
    try:
        binary = server_binary()
    except ServerError as error:
        yield Check("server", "wrong", str(error))
        return
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    yield Check("server", "ok" if said.returncode == 0 else "wrong", said.stdout.strip() or f"{binary} does not run")
    embedded = EmbeddedServer(data_dir)
    if not embedded.directory.is_dir():
        yield Check("store", "ok", "The embedded server has not been started here yet.")
        return
    try:
        with embedded.held() as directory:
            damage = mending.examine(directory, binary)
    except ServerError as error:  # it runs
        socket = embedded.directory / "server.sock"
        if socket.exists():
            yield from _store(f"unix://{socket}")
        else:
            yield Check("store", "warning", f"It cannot be asked: {error}")
        return
    except OSError as error:
        yield Check("append-only file", "wrong", f"The files in {embedded.directory} cannot be read: {error}")
        return
    if damage is None:
        yield Check("append-only file", "ok", f"The server does not run; all in {embedded.directory} can be read.")
    elif damage.harmless:
        yield Check("append-only file", "warning", f"{damage.sentence} The next start mends this by itself.")
    else:
        yield Check("append-only file", "wrong", f"{damage.sentence} {mending.remedy(damage)}")


def _store(url: str) -> Iterator[Check]:
    try:
        findings = asyncio.run(asyncio.wait_for(examine_at(url), PATIENCE))
    except (RedisError, OSError, TimeoutError) as error:
        yield Check("store", "wrong", asyncio.run(diagnose(url, error)).sentence)
        return
    bad = {*findings.refusals, *findings.unusable}
    yield from (Check("store", "wrong", sentence) for sentence in sorted(bad))
    yield from (Check("store", "warning", sentence) for sentence in findings.warnings if sentence not in bad)
    if bad:
        return
    with store.connect(url, patience=PATIENCE) as client:
        health = store.run(client, store.health())
    yield Check("store", "ok", f"It answers and takes writes; {health.queued} jobs wait.")
    if health.workers:
        yield Check("workers", "ok", f"{health.workers} alive")
    else:
        yield Check("workers", "warning", "No worker is alive, so no job runs: start `gradtune worker`.")
