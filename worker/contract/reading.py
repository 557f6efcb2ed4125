"""Reading options of a request, the formats that they fit, and the id of a dataset that is read with them."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from worker.contract.dataset import Format, ReadingOptions
from worker.contract.faults import Fault, suggestion

OPTIONS = list(ReadingOptions.model_fields)
SHORTHANDS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
THOUSANDS = (",", ".", " ", "'", "_", "\u00a0", "\u202f", "\u2019")
ENCODINGS = "as in utf-8, utf-16, latin-1, windows-1252, shift_jis or gb18030"
_TYPES = re.compile(r"(.+?):(number|category|date)(?:,|$)")
_NO_CHARSETS = {"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape", "utf-7", "mbcs", "oem"}


def parse_options(pairs: Iterable[tuple[str, str]], where: str = "/query") -> ReadingOptions | list[Fault]:
    """The options of a query, or their faults. `missing` and `types` may occur several times."""
    given: dict[str, Any] = {}
    found: list[Fault] = []
    for name, text in pairs:
        if name not in OPTIONS:
            detail = f"There is no option {name[:60]!r}{suggestion(name, OPTIONS)}; known: {', '.join(OPTIONS)}."
            found.append(Fault(f"{where}/{name[:60]}", "unknown_parameter", detail))
            continue
        value = _READ[name](text)
        if value is None:
            found.append(Fault(f"{where}/{name}", "invalid_option", _EXPECTED[name]))
        elif name in given and name not in {"missing", "types"}:
            found.append(Fault(f"{where}/{name}", "duplicate", f"{name} is given twice."))
        elif name == "types":
            given[name] = {**given.get(name, {}), **value}
        else:
            given[name] = [*given[name], *value] if name in given else value
    options = _canonical(given)
    return found or list(_clashes(options, where)) or options


def _canonical(given: dict[str, Any]) -> ReadingOptions:
    """The options in one form for equal readings: defaults are left out, and lists are sorted."""
    for name, default in (("decimal", "."), ("encoding", "utf-8"), ("types", {})):
        if given.get(name) == default:
            del given[name]
    if "missing" in given:
        given["missing"] = sorted({token for token in given["missing"] if token})
    if "types" in given:
        given["types"] = dict(sorted(given["types"].items()))
    return ReadingOptions(**given)


def _clashes(options: ReadingOptions, where: str) -> Iterator[Fault]:
    if options.thousands is not None and options.thousands == (options.decimal or "."):
        remedy = "say which one is the decimal mark by `decimal`"
        yield Fault(f"{where}/thousands", "invalid_option", f"It is the decimal mark, too; {remedy}.")


def _encoding(text: str) -> str | None:
    name = text.strip().lower()
    try:
        "".encode(name)  # refuses codecs that are no charsets
        name = name if name in _NO_CHARSETS else _charset(name)
    except (LookupError, ValueError):
        return None
    return None if name in _NO_CHARSETS else name


def _charset(name: str) -> str:
    found = codecs.lookup(name).name
    return {"ascii": "utf-8", "utf-8-sig": "utf-8"}.get(found, found)


def _delimiter(text: str) -> str | None:
    mark = SHORTHANDS.get(text, text)
    return mark if len(mark) == 1 and mark.isascii() and not mark.isalnum() and mark not in '"\r\n.+-\0' else None


def _types(text: str) -> dict[str, str] | None:
    found, end = {}, 0
    for match in _TYPES.finditer(text):
        if match.start() != end:
            return None
        found[match[1]], end = match[2], match.end()
    return found if found and end == len(text) and not text.endswith(",") else None


_READ: dict[str, Any] = {
    "missing": lambda text: text.split(","),
    "decimal": lambda text: text if text in {".", ","} else None,
    "thousands": lambda text: {"space": " "}.get(text, text) if {"space": " "}.get(text, text) in THOUSANDS else None,
    "encoding": _encoding,
    "delimiter": _delimiter,
    "header": lambda text: {"true": True, "false": False}.get(text.lower()),
    "types": _types,
}
_EXPECTED = {
    "decimal": "decimal is `.` or `,`.",
    "thousands": "thousands is one of `,` `.` `'` `_` and a blank (`space`).",
    "encoding": f"The encoding is not known; name one {ENCODINGS}.",
    "delimiter": "The delimiter is one character, as `tab` or `space`, no letter, digit, quote, sign or point.",
    "header": "header is `true` or `false`.",
    "types": "Write types as in types=zip:category,age:number; the types are number, category and date.",
}


def unfit(options: ReadingOptions, kind: Format, where: str = "/query") -> list[Fault]:
    """The options that have no meaning for a format."""
    if kind == "csv":
        return []
    known = {"types"} if kind in {"parquet", "arrow"} else set()
    text = f"A file of format {kind} takes " + ("no such option, only types." if known else "no reading options.")
    return [Fault(f"{where}/{name}", "unfit_option", text) for name in options.given() if name not in known]


def query_of(options: ReadingOptions) -> list[tuple[str, str]]:
    """The options as a query."""
    pairs: list[tuple[str, str]] = []
    for name, value in options.given().items():
        if name == "types":
            pairs += [(name, f"{column}:{kind}") for column, kind in value.items()]
        elif name == "missing":
            pairs += [(name, token) for token in value] or [(name, "")]
        else:
            pairs.append((name, str(value).lower() if isinstance(value, bool) else value))
    return pairs


def dataset_id(sha256: str, options: ReadingOptions) -> str:
    """The id of a file that is read with these options, made of its SHA-256 (hex); of that alone without options."""
    given = options.given()
    if not given:
        return f"ds_{sha256}"
    document = json.dumps(
        {"files": [sha256], "options": given}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return f"ds_{hashlib.sha256(document.encode()).hexdigest()}"
