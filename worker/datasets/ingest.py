"""From the bytes of a file to the canonical form: the one place that knows all readers."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

from worker.contract.dataset import Dataset, Format, ReadingOptions, StoredFile
from worker.contract.reading import dataset_id
from worker.datasets import manifest
from worker.datasets.draft import CONTENT, PREVIEW, Draft
from worker.datasets.formats.npy import read_npy
from worker.datasets.refusal import Limits, too_large
from worker.datasets.source import Source


def read(source: Source, directory: Path, kind: Format, limits: Limits, options: ReadingOptions | None = None) -> Draft:
    """Make the canonical form of a file in `directory`, with options that fit the format. Raises RefusedError."""
    try:
        return _read(source, directory, kind, limits, options or ReadingOptions())
    except MemoryError:
        raise too_large(
            f"Reading the file takes more than {limits.memory >> 20} MiB of memory; write it in smaller blocks (row "
            "groups, record batches), or send it as NPY or CSV."
        ) from None


def _read(source: Source, directory: Path, kind: Format, limits: Limits, options: ReadingOptions) -> Draft:
    # pyarrow takes longer to load than most NPY files to read
    if kind == "csv":
        from worker.datasets.formats.csv import read_csv  # noqa: PLC0415

        return read_csv(source, directory, limits, options)
    if kind in {"parquet", "arrow"}:
        from worker.datasets.formats import arrow  # noqa: PLC0415

        reader = arrow.read_parquet if kind == "parquet" else arrow.read_arrow
        return reader(source, directory, limits, options.types)
    if kind == "libsvm":
        from worker.datasets.formats.libsvm import read_libsvm  # noqa: PLC0415

        return read_libsvm(source, directory, limits)
    if kind == "npz":
        from worker.datasets.formats.npz import read_npz  # noqa: PLC0415

        return read_npz(source, directory, limits)
    return read_npy(source, directory, limits)


def assemble(
    directory: Path,
    draft: Draft,
    kind: Format,
    size: int,
    sha256: str,
    created_at: datetime,
    options: ReadingOptions | None = None,
) -> Dataset:
    """Turn a working directory into the canonical form: a manifest, and no file that it does not name."""
    files = dict(draft.layout.files)
    if draft.layout.dense is not None and draft.layout.dense.file == CONTENT:
        files[CONTENT] = StoredFile(bytes=size, sha256=sha256)
    else:
        (directory / CONTENT).unlink(missing_ok=True)
    shown = (directory / PREVIEW).read_bytes()
    files[PREVIEW] = StoredFile(bytes=len(shown), sha256=hashlib.sha256(shown).hexdigest())
    dataset = Dataset(
        id=dataset_id(sha256, options or ReadingOptions()),
        format=kind,
        bytes=size,
        stored_bytes=sum(file.bytes for file in files.values()),
        sha256=sha256,
        rows=draft.rows,
        created_at=created_at,
        columns=draft.columns,
        sparse=draft.sparse,
        header=draft.header,
        options=options if options is not None and options.given() else None,
        warnings=draft.warnings,
        layout=draft.layout.model_copy(update={"files": files}),
    )
    return manifest.write(directory, dataset)
