"""Every setting of the service, each also an environment variable `GRADTUNE_<NAME>`; command-line flags win."""

from __future__ import annotations

import ipaddress
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.redis_url import check_url

if TYPE_CHECKING:
    from worker.datasets.refusal import Limits


class ConfigurationError(Exception):
    """The settings do not allow a start; the message names the remedy."""


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "gradtune"


def cores() -> int:
    """Processors that this process may use: by its affinity, and by the quota of its container."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no container; or "max"
        quota, period = (int(field) for field in Path("/sys/fs/cgroup/cpu.max").read_text().split())
        available = min(available, quota // period)
    return max(1, available)


def parted(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part for part in (part.strip() for part in text.split(",")) if part]


def is_origin(text: str) -> bool:
    """Whether a text is an origin as browsers write it: `https://example.org` or `http://localhost:3000`."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if default is None or not parts.hostname or port == default or "@" in text:
        return False
    return text == f"{parts.scheme}://{parts.netloc}".lower()


class Settings(BaseSettings):
    """Read once at start; a wrong value is reported with its name and nothing is started."""

    model_config = SettingsConfigDict(env_prefix="GRADTUNE_", env_ignore_empty=True, frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="Address to listen on; any other than loopback needs API keys.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="Port to listen on; 0 takes a free one."
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="Worker processes, one job each at a time."
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir, description="Where embedded server and datasets are kept."
    )
    redis_url: str | None = Field(
        default=None, description="A Redis-compatible server, redis://, rediss:// or unix://; default: an embedded one."
    )
    api_key_hashes: str = Field(
        default="", description="SHA-256 hashes of accepted API keys, comma-separated; see `gradtune keys create`."
    )
    blas_threads: Annotated[int, Field(ge=1)] = Field(default=1, description="BLAS threads of each worker.")
    starts_at_once: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None,
        description="Starts of one job that a worker searches at the same time; default: the cores of the machine or "
        "the container, over workers times BLAS threads.",
    )
    job_memory_mb: Annotated[float, Field(ge=64)] | None = Field(
        default=None,
        description="MiB that a job may take; default: 80 % of the machine's or the container's memory over workers.",
    )
    store_memory_mb: Annotated[float, Field(ge=16)] | None = Field(
        default=None,
        description="MiB of jobs and results that the embedded server holds; full, it takes no new ones (503). "
        "Default: a quarter of the machine's or the container's memory.",
    )
    retention_days: Annotated[float, Field(gt=0)] = Field(default=7.0, description="How long ended jobs are kept.")
    max_queued: Annotated[int, Field(ge=1)] = Field(default=10_000, description="Jobs that may wait; beyond, 429.")
    max_queued_mb: Annotated[float, Field(gt=0)] = Field(
        default=256.0, description="MiB of data and specs of the jobs that wait or run, together; beyond, 429."
    )
    max_kept_mb: Annotated[float, Field(gt=0)] = Field(
        default=1024.0,
        description="MiB that ended jobs may take, of a store with `maxmemory` half of that at most; beyond, the "
        "oldest are removed before their retention.",
    )
    max_seconds: Annotated[float, Field(gt=0, le=604_800)] = Field(
        default=86_400.0, description="Most that a job may ask for as `limits.seconds`; beyond, 422."
    )
    max_estimated_seconds: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Seconds of one core that a job may be estimated to take; beyond, 413. Default: four times "
        "GRADTUNE_MAX_SECONDS.",
    )
    storage_url: str | None = Field(
        default=None, description="Where datasets are kept: s3://, gs:// or az://BUCKET/PREFIX; default: the data dir."
    )
    cache_mb: Annotated[float, Field(gt=0)] = Field(
        default=20_480.0, description="MiB of datasets that a machine keeps copies of, where the storage is remote."
    )
    dataset_max_mb: Annotated[float, Field(gt=0)] = Field(
        default=16_384.0, description="MiB of an uploaded file, decompressed, and of each file made of it."
    )
    dataset_max_values: Annotated[int, Field(ge=1)] = Field(
        default=2**31, description="Rows times columns of a dataset; entries, where it is sparse."
    )
    dataset_max_columns: Annotated[int, Field(ge=1)] = Field(default=20_000, description="Dense columns of a dataset.")
    dataset_max_sparse_columns: Annotated[int, Field(ge=1, lt=2**31)] = Field(
        default=2_000_000, description="Sparse columns of a dataset, whether anything is stored in them or not."
    )
    dataset_memory_mb: Annotated[float, Field(ge=64)] = Field(
        default=1024.0, description="MiB of memory that reading an uploaded file may take."
    )
    dataset_seconds: Annotated[int, Field(ge=1)] = Field(
        default=1800, description="Processor time that reading an uploaded file may take."
    )
    dataset_readers: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Uploaded files that are read at the same time, by each API process."
    )
    dataset_quota_mb: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="MiB that all datasets may take; default: half of the disk that is free or theirs at the start, no "
        "limit for a remote storage.",
    )
    dataset_eviction: bool = Field(
        default=False, description="Whether a full quota removes the longest unused datasets instead of refusing."
    )
    dataset_retention_days: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="How long datasets are kept after their last use; default: until they are deleted."
    )
    dataset_scrub_mb_per_second: Annotated[float, Field(ge=0)] = Field(
        default=20.0,
        description="MiB a second at which stored datasets are read again, each once a week, to find damage; 0: never.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Names under which the service is reached, comma-separated, as in `tuning.example.org` or "
        "`*.example.org`; on loopback besides those of this machine. Default: any, where there are API keys.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins of web pages that may use the service, comma-separated, as in `https://app.example.org`.",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        default=10_000, description="Connections of one API process; fewer where there are not as many descriptors."
    )
    header_seconds: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="Seconds that the headers of a request may take."
    )
    body_seconds: Annotated[float, Field(gt=0)] = Field(
        default=30.0, description="Seconds in which a body must bring 1 KiB; there is no limit on all of it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Of all processes.")

    @field_validator("api_key_hashes")
    @classmethod
    def _hashes(cls, value: str) -> str:
        for digest in value.split(","):
            if value and (len(digest.strip()) != 64 or set(digest.strip().lower()) - set("0123456789abcdef")):
                raise ValueError("each must be the 64 hexadecimal digits that `gradtune keys create` prints")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: str | None) -> str | None:
        if value is not None:
            check_url(value)
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: str) -> str:
        for name in parted(value):
            if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", name):
                raise ValueError(
                    "each must be a name or an address without scheme and port, as in `tuning.example.org`"
                )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in parted(value):
            if not is_origin(origin):
                raise ValueError("each must be scheme, name and port of one origin, as in `https://app.example.org`")
        return value

    @property
    def hosts(self) -> frozenset[str]:
        """The names that the service has besides those of loopback, in lower case."""
        return frozenset(name.lower() for name in parted(self.allowed_hosts))

    @property
    def origins(self) -> frozenset[str]:
        """The origins whose pages may use the service."""
        return frozenset(parted(self.cors_origins))

    @property
    def key_hashes(self) -> frozenset[str]:
        """The accepted hashes; empty: no authentication."""
        return frozenset(digest.strip().lower() for digest in self.api_key_hashes.split(",") if digest.strip())

    @property
    def retention(self) -> float:
        """Seconds for which ended jobs are kept."""
        return self.retention_days * 86400

    @property
    def queued_bytes(self) -> int:
        """Bytes that the jobs that wait or run may take together."""
        return int(self.max_queued_mb * 2**20)

    @property
    def kept_bytes(self) -> int:
        """Bytes that ended jobs may take."""
        return int(self.max_kept_mb * 2**20)

    @property
    def estimated_seconds(self) -> float:
        """Seconds of one core that a job may be estimated to take."""
        return self.max_estimated_seconds or 4 * self.max_seconds

    @property
    def job_memory(self) -> float:
        """MiB that a job may take on this machine."""
        from worker.queue import memory  # noqa: PLC0415 - RQ comes with it, for every command

        return self.job_memory_mb or max(64.0, memory.share(self.workers) / 2**20)

    @property
    def store_memory(self) -> int:
        """Bytes that the embedded server may hold."""
        from worker.queue import memory  # noqa: PLC0415 - RQ comes with it, for every command

        return int((self.store_memory_mb or max(64.0, memory.total() / 2**22)) * 2**20)

    @property
    def dataset_limits(self) -> Limits:
        """Most that one dataset may take."""
        from worker.datasets.refusal import Limits  # noqa: PLC0415 - numpy and scipy come with it, for every command

        return Limits(
            values=self.dataset_max_values,
            columns=self.dataset_max_columns,
            bytes=int(self.dataset_max_mb * 2**20),
            memory=int(self.dataset_memory_mb * 2**20),
            seconds=self.dataset_seconds,
            sparse_columns=self.dataset_max_sparse_columns,
        )

    @property
    def dataset_quota(self) -> int | None:
        """Bytes that all datasets may take; None: no limit is set."""
        return None if self.dataset_quota_mb is None else int(self.dataset_quota_mb * 2**20)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def share_of_cores(self) -> int:
        """Processes that each worker may keep busy, so that no core has two."""
        return self.starts_at_once or max(1, cores() // (self.workers * self.blas_threads))

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for child processes."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values["starts_at_once"] = self.share_of_cores
        values["job_memory_mb"] = self.job_memory
        return {f"GRADTUNE_{name.upper()}": str(value) for name, value in values.items() if value is not None}
