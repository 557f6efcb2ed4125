"""The record of a dataset as it lies in its storage: written with a seal, believed only where it fits.

The seal is a hash of the manifest. It stands among the hashes of the files, and a file `seal` goes with it: versions
that do not know seals check it as any other file, and do not accept unknown fields.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from worker.contract.dataset import DATASET_ID, Dataset, Layout, StoredFile
from worker.datasets.storage import DamagedError, DatasetGoneError, Storage, StorageError, reading

MANIFEST: Final = "manifest.json"
SEAL: Final = "seal"
FILE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}(\.json)?")
"""What a file of a dataset may be called: a name that stays in its folder, whatever it is joined to."""
UNSEALED: Final = frozenset({"content", "dense", "data", "indices", "indptr", "preview.json"})
"""The files of datasets that were stored by versions without seals."""
_BLANK: Final = b"0" * 64
_ENTRY: Final = b'"seal":{"bytes":64,"sha256":"'  # in no text: quotes are escaped there


class Record(NamedTuple):
    """A manifest that fits: as JSON, and where the arrays are."""

    document: dict[str, Any]
    layout: Layout

    @property
    def files(self) -> dict[str, StoredFile]:
        """The files whose content matters; that of the seal can be of another upload of the same bytes."""
        return {name: stored for name, stored in self.layout.files.items() if name != SEAL}


def write(directory: Path, dataset: Dataset) -> Dataset:
    """Write manifest and seal; the dataset with the seal among its files."""
    content = _with_seal(dataset, _BLANK.decode()).model_dump_json().encode()
    seal = hashlib.sha256(content).hexdigest().encode()
    made = _with_seal(dataset, hashlib.sha256(seal).hexdigest())
    (directory / SEAL).write_bytes(seal)
    (directory / MANIFEST).write_text(made.model_dump_json(), encoding="utf-8")
    return made


def bytes_on_disk(dataset: Dataset, manifest: int) -> int:
    """What all files of a dataset take, with a manifest of so many bytes."""
    return sum(file.bytes for file in dataset.layout.files.values()) + manifest


def _with_seal(dataset: Dataset, sha256: str) -> Dataset:
    files = {**dataset.layout.files, SEAL: StoredFile(bytes=len(_BLANK), sha256=sha256)}
    return dataset.model_copy(update={"layout": dataset.layout.model_copy(update={"files": files})})


def seal_of(content: bytes) -> bytes | None:
    """What the file `seal` of a manifest holds; None where an older version wrote it, without one.

    Raises ValueError where the manifest is not what was sealed.
    """
    place = content.find(_ENTRY)
    if place < 0:
        return None
    start = place + len(_ENTRY)
    end = start + len(_BLANK)
    seal = hashlib.sha256(content[:start] + _BLANK + content[end:]).hexdigest().encode()
    if hashlib.sha256(seal).hexdigest().encode() != content[start:end] or content.find(_ENTRY, end) >= 0:
        raise ValueError("the seal is that of another manifest")
    return seal


def open_record(content: bytes, dataset_id: str) -> Record:
    """Read a manifest. Raises DamagedError for one that is not what was written, or names files out of its folder."""
    try:
        document = orjson.loads(content)
        layout = Layout.model_validate(document["layout"])
        sealed = seal_of(content) is not None
        if not sealed:
            Dataset.model_validate_json(content)
        if document["id"] != dataset_id or not (sealed or layout.files.keys() <= UNSEALED):
            raise DamagedError(dataset_id, "Its manifest is that of another dataset, or has lost its seal.")
        _check(document, layout)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(dataset_id, "Its manifest is not what was written.") from error
    return Record(document, layout)


def open_dataset(content: bytes, dataset_id: str) -> Dataset:
    """Read a manifest as the record that it is. Raises as `open_record`; StorageError for one of a newer version."""
    open_record(content, dataset_id)
    try:
        return Dataset.model_validate_json(content)
    except ValueError as error:
        raise StorageError(f"Dataset {dataset_id} was stored by a newer version of the service.") from error


def _check(document: dict[str, Any], layout: Layout) -> None:
    """Raises ValueError for names that are none, and for arrays that do not fit the files that they should lie in."""
    if wrong := [name for name in layout.files if not FILE_NAME.fullmatch(name) or name == MANIFEST]:
        raise ValueError(f"{wrong[0]!r} is no name of a file")
    rows, width = int(document["rows"]), len(document["columns"])
    if layout.dense is None:
        fits = width == 0
    else:
        fits = layout.dense.offset + 8 * rows * width == layout.files[layout.dense.file].bytes
        fits = fits and layout.dense.offset >= 0
    if (parts := layout.sparse) is not None:
        size = {name: layout.files[name].bytes for name in (parts.data, parts.indices, parts.indptr)}
        places = size[parts.indices] // (4 if parts.index_type == "int32" else 8)
        fits = fits and 8 * places == size[parts.data] and size[parts.indptr] == 8 * (rows + 1)
    if not fits or rows < 0:
        raise ValueError("the arrays do not fit the files")


def require_id(dataset_id: str) -> str:
    """An id, which may be joined to a path. Raises DatasetGoneError for what is none."""
    if not re.fullmatch(DATASET_ID, dataset_id):
        raise DatasetGoneError("There is no dataset with this id.")
    return dataset_id


def read_record(path: Path) -> bytes:
    """The manifest in the folder of a dataset. Raises DamagedError where a folder has none that can be read."""
    with reading(path.name, MANIFEST):
        return (path / MANIFEST).read_bytes()


def small_file(storage: Storage, dataset_id: str, name: str) -> bytes:
    """The manifest, or another small file, of a dataset whose files are there. Raises DamagedError, StorageError."""
    content = storage.read(dataset_id, MANIFEST)
    if content is None:
        raise DamagedError(dataset_id, f"Its file {MANIFEST} is not there.")
    record = open_record(content, dataset_id)
    storage.inspect(dataset_id, record.layout)
    if name == MANIFEST:
        return content
    found, stored = storage.read(dataset_id, name), record.files.get(name)
    if found is None or stored is None or hashlib.sha256(found).hexdigest() != stored.sha256:
        raise DamagedError(dataset_id, f"Its file {name} is not what was stored.")
    return found
