"""From the bytes of a file to the canonical form: the one place that knows all readers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from worker.contract.dataset import Dataset, Format, StoredFile
from worker.datasets.draft import CONTENT, PREVIEW, Draft
from worker.datasets.formats.npy import read_npy
from worker.datasets.refusal import Limits
from worker.datasets.source import Source

MANIFEST: Final = "manifest.json"


def _read_csv(source: Source, directory: Path, limits: Limits) -> Draft:
    from worker.datasets.formats.csv import read_csv  # noqa: PLC0415 - pyarrow takes longer to load than NPY to read

    return read_csv(source, directory, limits)


READERS: Final[Mapping[Format, Callable[[Source, Path, Limits], Draft]]] = MappingProxyType(
    {"npy": read_npy, "csv": _read_csv}
)


def assemble(directory: Path, draft: Draft, kind: Format, size: int, sha256: str, created_at: datetime) -> Dataset:
    """Turn a working directory into the canonical form: a manifest, and no file that it does not name."""
    files = dict(draft.layout.files)
    if draft.layout.dense is not None and draft.layout.dense.file == CONTENT:
        files[CONTENT] = StoredFile(bytes=size, sha256=sha256)
    else:
        (directory / CONTENT).unlink(missing_ok=True)
    shown = (directory / PREVIEW).read_bytes()
    files[PREVIEW] = StoredFile(bytes=len(shown), sha256=hashlib.sha256(shown).hexdigest())
    dataset = Dataset(
        id=f"ds_{sha256}",
        format=kind,
        bytes=size,
        stored_bytes=sum(file.bytes for file in files.values()),
        sha256=sha256,
        rows=draft.rows,
        created_at=created_at,
        columns=draft.columns,
        sparse=draft.sparse,
        header=draft.header,
        layout=draft.layout.model_copy(update={"files": files}),
    )
    (directory / MANIFEST).write_text(dataset.model_dump_json())
    return dataset
