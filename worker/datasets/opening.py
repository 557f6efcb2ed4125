"""The storage that a URL or the environment names: a directory or an object store."""

from __future__ import annotations

import os
from pathlib import Path

from worker.datasets.local import LocalStorage
from worker.datasets.storage import Storage

CACHE_MB = 20_480.0


def open_storage(url: str | None, data_dir: Path, cache_mb: float = CACHE_MB) -> Storage:
    """The storage at `url` (`s3://`, `gs://`, `az://`, `file://`), or in `data_dir`. Raises StorageError."""
    if url is None:
        return LocalStorage(data_dir / "datasets")
    if url.startswith("file://"):
        return LocalStorage(Path(url.removeprefix("file://")))
    from worker.datasets.remote import remote_storage  # noqa: PLC0415 - few need it

    return remote_storage(url, data_dir, int(cache_mb * 2**20))


def storage_from_environment() -> Storage:
    """The storage that the settings of this process name, `GRADTUNE_STORAGE_URL` or `GRADTUNE_DATA_DIR`."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    data_dir = os.environ.get("GRADTUNE_DATA_DIR") or Path(base) / "gradtune"
    cache = float(os.environ.get("GRADTUNE_CACHE_MB") or CACHE_MB)
    return open_storage(os.environ.get("GRADTUNE_STORAGE_URL") or None, Path(data_dir), cache)
