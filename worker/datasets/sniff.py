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
    (b"7z\xbc\xaf\x27\x1c", "The file is a 7z archive; send the table that is in it."),
    (b"%PDF-", "The file is a PDF document, and no table; send its data as CSV."),
    (b"{\\rtf", "The file is a document (RTF); save the table as CSV."),
    (b"\x89PNG", "The file is an image; send a table."),
    (b"\xff\xd8\xff", "The file is an image; send a table."),
    (b"GIF8", "The file is an image; send a table."),
    (b"SQLite format 3\0", "The file is a SQLite database, which is not read; export the table as CSV."),
    (b"MATLAB 5.0", "The file is of MATLAB, which is not read; save it by scipy or as CSV."),
    (b"ORC", "The file is ORC, which is not read; send it as Parquet."),
    (b"Obj\x01", "The file is Avro, which is not read; send it as Parquet."),
    (b"FEA1", "The file is of the first version of Feather; write it again (it is Arrow IPC now)."),
    (b"$FL2", "The file is of SPSS, which is not read; save it as CSV."),
    (b"<stata_dta>", "The file is of Stata, which is not read; save it as CSV."),
    (b"RDX", "The file is R's own, which is not read; save the table by write.csv or as Parquet."),
    (
        b"version https://git-lfs.github.com/spec/",
        "The file is a pointer of Git LFS; get the file itself by `git lfs pull`.",
    ),
    (b"/annex/objects/", "The file is a pointer of git-annex; get the file itself by `git annex get`."),
)
_TEXTS: Final = (
    (
        rb"(?i)\s*<(!doctype|!--|\?xml|(html|head|body|table|script|svg|div|error)\b)",
        "The file is a page of HTML or XML, and no table; perhaps a link led to a web page.",
    ),
    (
        rb'\s*\[?\s*\{\s*("|\})',
        "The file is JSON, which is not read as a file; send its records as CSV, Parquet or Arrow.",
    ),
    (rb"\s*\[\s*[\[\d\"-]", "The file is JSON, which is not read as a file; send it as CSV, Parquet or NPY."),
    (
        rb"(\s*%[^\n]*\n)*\s*@(?i:relation)\s",
        "The file is ARFF, which is not read; send its rows as CSV, with a line of names.",
    ),
    (
        rb"\x80[\x02-\x05](\x95|\}|\]|c)",
        "The file is a pickle, which is never unpickled; send Parquet, Arrow, NPY or CSV.",
    ),
)
_LIBSVM: Final = re.compile(rb"\s*[-+.\deE,]+(\s+\d+:\S+)+\s*(#.*)?")


def recognize(media_type: str, head: bytes) -> Format:
    """The format. Raises RefusedError for a type that is not read, or that the content contradicts."""
    declared = MEDIA_TYPES.get(media_type)
    if declared is None and media_type != ANY:
        known = ", ".join([*MEDIA_TYPES, ANY])
        raise _wrong(f"This content type is not read here; known: {known}.")
    if (hint := _elsewhere(head)) is not None:
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


def _elsewhere(head: bytes) -> str | None:
    """What a file is, and what to do, if it is of a kind that is known and not read."""
    for magic, hint in _ELSEWHERE:
        if head.startswith(magic):
            return hint
    if head[257:262] == b"ustar":
        return "The file is a tar archive; send the table that is in it."
    if head.startswith(b"PK\x03\x04"):
        return _zipped(head)
    text = head.removeprefix(b"\xef\xbb\xbf")
    return next((hint for pattern, hint in _TEXTS if re.match(pattern, text)), None)


def _zipped(head: bytes) -> str | None:
    """What a zip archive is, by its first file, if it is not one of numpy."""
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if first.endswith(b".npy"):
        return None
    if first.startswith((b"[Content_Types].xml", b"_rels/", b"docProps/", b"xl/")):
        return (
            "The file is an Excel workbook (or another document of Office), which is not read; save the sheet as CSV."
        )
    if first == b"mimetype":
        return "The file is an OpenDocument sheet, which is not read; save it as CSV."
    return "The file is a zip archive, and its first file is no .npy array; send the table that is in it."


def _wrong(detail: str) -> RefusedError:
    return RefusedError(Reason.WRONG_TYPE, detail)


def _is_libsvm(head: bytes) -> bool:
    lines = (line for line in head.splitlines() if line.strip() and not line.lstrip().startswith(b"#"))
    return _LIBSVM.fullmatch(next(lines, b"")) is not None
