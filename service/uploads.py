"""Files of the command line on their way to the service: hashed first, sent only if they are not there yet."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from service.client import Client, ClientError
from worker.contract.dataset import ReadingOptions
from worker.contract.reading import dataset_id, query_of

CHUNK = 2**20
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".npy": "application/x-npy",
    ".npz": "application/x-npz",
    ".svm": "text/x-libsvm",
    ".libsvm": "text/x-libsvm",
}
ENCODINGS = {".gz": "gzip", ".zst": "zstd"}


def upload(
    client: Client, path: Path, media_type: str | None, options: ReadingOptions | None = None, *, quiet: bool
) -> tuple[dict[str, Any], bool]:
    """The document of the dataset that a file is, and whether it had to be sent. Raises ClientError, OSError."""
    options = options or ReadingOptions()
    size = path.stat().st_size
    digest = hashlib.sha256()
    for part in _read(path, size, "Reading", quiet=quiet):
        digest.update(part)
    encoding = ENCODINGS.get(path.suffix.lower())
    stem = Path(path.stem) if encoding else path
    if encoding is None and (known := _known(client, dataset_id(digest.hexdigest(), options))) is not None:
        return known, False
    headers = {
        "Content-Type": media_type or MEDIA_TYPES.get(stem.suffix.lower(), "application/octet-stream"),
        "Content-Length": str(size),
        "Content-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
    }
    if encoding is not None:
        headers["Content-Encoding"] = encoding
    query = urlencode(query_of(options))
    reply = client.send(
        f"/v1/datasets{'?' if query else ''}{query}", _read(path, size, "Sending", quiet=quiet), headers
    )
    document: dict[str, Any] = reply.json
    return document, reply.status == 201


def with_data(client: Client, spec: Path, data: Path | None, *, quiet: bool) -> bytes:
    """A job spec as it is sent: with the id of the dataset that a local file becomes. Raises ClientError, OSError."""
    content = spec.read_bytes()
    if data is None:
        return content
    try:
        document = json.loads(content)
        roles = dict(document.setdefault("data", {}))
    except (ValueError, TypeError, AttributeError):
        raise ClientError(f"{spec} is no job spec: a JSON object, whose `data` is one, too") from None
    if "x" in roles:
        raise ClientError(f"{spec} brings a table of its own in `data`; leave out either that or --data")
    dataset, _ = upload(client, data, None, quiet=quiet)
    return json.dumps({**document, "data": {**roles, "dataset_id": dataset["id"]}}).encode()


def warning_lines(document: dict[str, Any]) -> list[str]:
    """What a dataset was read as where its writer may have meant something else."""
    return [f"warning: {warning['text']}" for warning in document.get("warnings", [])[:40]]


def _known(client: Client, name: str) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = client.get(f"/v1/datasets/{name}").json
    except ClientError as error:
        if re.match(r"404\b|409 The dataset is damaged", str(error)):  # sending it repairs it
            return None
        raise
    return document


def _read(path: Path, size: int, label: str, *, quiet: bool) -> Iterator[bytes]:
    """The parts of a file, with a progress bar on the terminal, if there is one and the file is not small."""
    shown = not quiet and size > 8 * CHUNK
    name = f"{label} {path.name}"
    bar: Any = click.progressbar(length=size, label=name, file=sys.stderr) if shown else nullcontext()
    with bar as progress, path.open("rb") as file:
        while part := file.read(CHUNK):
            yield part
            if progress is not None:
                progress.update(len(part))


def column_table(document: dict[str, Any]) -> str:
    """The columns of a dataset as text."""
    rows = [("column", "type", "missing", "min", "max", "mean", "distinct")]
    for column in document["columns"][:40]:
        numbers = (column["min"], column["max"], column["mean"])
        texts = tuple("" if value is None else f"{value:.6g}" for value in numbers)
        distinct = "" if column["distinct"] is None else str(column["distinct"])
        rows.append((column["name"], column["type"], str(column["missing"]), *texts, distinct))
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    more = len(document["columns"]) - 40
    if more > 0:
        lines.append(f"... and {more} more")
    if document["sparse"]:
        sparse = document["sparse"]
        lines.append(f"and {sparse['columns']} sparse columns with {sparse['nonzeros']} entries")
    return "\n".join(lines)
