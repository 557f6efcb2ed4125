"""What a file is, by its Content-Type and its first bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from worker.contract.dataset import Format
from worker.datasets.refusal import Reason, RefusedError

MEDIA_TYPES: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "text/csv": "csv",
        "application/vnd.apache.parquet": "parquet",
        "application/vnd.apache.arrow.file": "arrow",
        "application/vnd.apache.arrow.stream": "arrow",
        "application/x-npy": "npy",
        "application/x-npz": "npz",
        "text/x-libsvm": "libsvm",
    }
)
ANY: Final = "application/octet-stream"
SNIFFED: Final = 65_536
"""Bytes that are enough to tell."""

_MAGIC: Final[tuple[tuple[bytes, Format], ...]] = (
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
    (b"PK\x05\x06", "npz"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_ELSEWHERE: Final = (
    (b"\x1f\x8b", "The file is compressed by gzip: send it with `Content-Encoding: gzip`."),
    (b"\x28\xb5\x2f\xfd", "The file is compressed by zstd: send it with `Content-Encoding: zstd`."),
    (b"BZh", "The file is compressed by bzip2; send it uncompressed, or compressed by gzip or zstd."),
    (b"\xfd7zXZ", "The file is compressed by xz; send it uncompressed, or compressed by gzip or zstd."),
    (b"\x89HDF", "The file is HDF5, which is not read; send it as Parquet, Arrow or NPY."),
    (b"\xd0\xcf\x11\xe0", "The file is an old Excel sheet, which is not read; save it as CSV."),
)
_LIBSVM: Final = re.compile(rb"\s*[-+.\deE,]+(\s+\d+:\S+)+\s*(#.*)?")


def recognize(media_type: str, head: bytes) -> Format:
    """The format. Raises RefusedError for a type that is not read, or that the content contradicts."""
    declared = MEDIA_TYPES.get(media_type)
    if declared is None and media_type != ANY:
        known = ", ".join([*MEDIA_TYPES, ANY])
        raise _wrong(f"This content type is not read here; known: {known}.")
    for magic, hint in _ELSEWHERE:
        if head.startswith(magic):
            raise _wrong(hint)
    found = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if declared is None:
        return found or ("libsvm" if _is_libsvm(head) else "csv")
    expects_magic = declared not in {"csv", "libsvm"}
    if found != (declared if expects_magic else None) and head:
        what = f"begins like a file of format {found}" if found else "does not begin like one"
        raise _wrong(f"The content type says {declared}, and the content {what}.")
    stream = media_type == "application/vnd.apache.arrow.stream"
    if declared == "arrow" and head.startswith(b"ARROW1") == stream:
        raise _wrong("The content is an Arrow IPC file and not a stream, or the reverse; correct the content type.")
    return declared


def _wrong(detail: str) -> RefusedError:
    return RefusedError(Reason.WRONG_TYPE, detail)


def _is_libsvm(head: bytes) -> bool:
    lines = (line for line in head.splitlines() if line.strip() and not line.lstrip().startswith(b"#"))
    return _LIBSVM.fullmatch(next(lines, b"")) is not None
