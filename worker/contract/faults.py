"""Faults that a caller can act on, made of validation errors: place, kind and remedy, never the input itself."""

from __future__ import annotations

import difflib
import functools
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MOST = 20  # faults reported for one request
LONGEST_SENTENCE = 300  # characters of a sentence
LONGEST_NAME = 60  # characters of a caller's own name that are repeated to them
MOST_COMPARED = 300  # known names that an unknown one is compared with; 0.2 s if all are similar
MOST_MEMBERS = 10_000  # of one JSON object
MOST_LISTS = 200_000  # of one document: twice the rows that inline data or a prediction may have
UNION_TAGS = frozenset(
    {
        "[key]",
        "[inline]",
        "[dataset]",
        "[matrices]",
        "[name]",
        "[all_but]",
        "[number]",
        "[settings]",
        "[numbers]",
        "[names]",
        "[dense]",
        "[sparse]",
        "[rows]",
        "[duration]",
        "[text]",
    }
)  # parts of a location in a validation error that are no place in the document
NUMBER = "constrained-float"  # the same, of a number in bounds where a word may stand, too


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a request: its place (a JSON pointer), its kind, and a sentence with the remedy."""

    pointer: str
    code: str
    detail: str


def schema_faults(error: ValidationError, body: bytes, model: type[BaseModel]) -> list[Fault]:
    """The faults behind a validation error of `model` on a JSON `body`, at most `MOST` of them."""
    document = _parsed(body)
    details = error.errors(include_input=False, include_url=False)
    schema = _schema(model)
    inside = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
    # a sequence whose check ended at a bad item is not too short as well
    details = [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in inside]
    # what is no word of a list and is an object has no fault but those of its members
    details = [detail for detail in details if not _is_other_choice(detail["loc"], inside)]
    details = list(_of_numbers_or_words(details))
    return [_fault(detail, document, schema) for detail in details[:MOST]]


def _is_other_choice(location: tuple[int | str, ...], inside: set[tuple[int | str, ...]]) -> bool:
    if not location or not str(location[-1]).startswith("literal["):
        return False
    here = location[:-1]
    return any(path[:-1] == here and str(path[-1]).startswith("dict[") for path in inside if path)


def _of_numbers_or_words(details: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """One fault for a value that may be a number or a word: of the number if it is one, else of the word."""
    numbers = {detail["loc"][:-1]: detail for detail in details if detail["loc"][-1:] == (NUMBER,)}
    words = {detail["loc"][:-1] for detail in details if str(*detail["loc"][-1:]).startswith("literal[")}
    for detail in details:
        number = numbers.get(detail["loc"][:-1])
        if number is None or detail["loc"][:-1] not in words:
            yield detail
        elif (number["type"] == "float_type") != (detail is number):
            yield {**detail, "msg": f"{detail['msg']} or a number"} if detail is not number else detail


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def crowded(body: bytes) -> Fault | None:
    """The fault of a body with more than `MOST_LISTS` lists, or an object of more than `MOST_MEMBERS` members.

    A list takes many times the bytes that it is written with, and validation would collect an error for each member.
    """
    if (lists := body.count(b"[")) > MOST_LISTS:
        return Fault("", "too_many", f"A document may have {MOST_LISTS} lists; this one has {lists}. Send fewer rows.")
    if body.count(b":") <= MOST_MEMBERS:
        return None
    objects: list[tuple[list[int | str], Any]] = [([], _parsed(body))]
    while objects:
        path, here = objects.pop()
        if isinstance(here, dict):
            if len(here) > MOST_MEMBERS:
                text = f"An object may have {MOST_MEMBERS} members; here are {len(here)}."
                return Fault(pointer_of(path), "too_many", text)
            objects += [([*path, name], value) for name, value in here.items()]
    return None


def _parsed(body: bytes) -> Any:
    """The document with its numbers as texts: only its shape is of interest, and a number may have many digits."""
    try:
        return json.loads(body, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None


def _fault(detail: ErrorDetails, document: Any, schema: dict[str, Any]) -> Fault:
    code, path = detail["type"], _path(detail["loc"], document, schema)
    context = detail.get("ctx", {})
    text = detail["msg"].removeprefix("Value error, ")
    if code in {"union_tag_invalid", "union_tag_not_found"}:
        known = [tag.strip(" '\"") for tag in context.get("expected_tags", "").split(",") if tag]
        known = list(dict.fromkeys(known)) or _kinds(_at(schema, path, document))
        by_name = isinstance(_value(document, path), str)  # a bare name stands for a member
        path, given = path if by_name else [*path, "kind"], str(context.get("tag", "")).strip("'")
        if by_name and given in known:
            code, text = "missing", f'{_name(given)} has settings without a default: {{"kind": "{given}", ...}}'
        else:
            code = "unknown_kind" if given else "missing"
            text = f"There is no kind {_name(given)}" if given else "The field kind is required"
            text += f"{_nearest(given, known)}; known: {', '.join(known)}"
    elif code in {"extra_forbidden", "unexpected_keyword_argument"}:
        known = list(_at(schema, path[:-1], document).get("properties", {}))
        code, text = "unknown_field", f"There is no field {_name(str(path[-1]))} here{_nearest(str(path[-1]), known)}"
    elif code == "json_invalid":
        code, text = "invalid_json", text.removeprefix("Invalid JSON: ")
    return Fault(pointer_of(path), code, sentence(text))


def _path(location: tuple[int | str, ...], document: Any, schema: dict[str, Any]) -> list[int | str]:
    """The location without the marks of validation: the tag of each union that it passes, `[key]` after a name."""
    path: list[int | str] = []
    node, here = schema, document
    for part in location:
        variant = _variant(node, here, schema)
        is_tag = "discriminator" in _resolved(node, schema) and variant is not _resolved(node, schema)
        node = variant
        if (is_tag and part == here["kind"]) or (_is_mark(part) and not (isinstance(here, dict) and part in here)):
            continue
        path.append(part)
        node, here = _child(node, part), _member(here, part)
    return path


def _is_mark(part: int | str) -> bool:
    return part in UNION_TAGS or part == NUMBER or str(part).startswith(("literal[", "dict["))


def _at(schema: dict[str, Any], path: list[int | str], document: Any) -> dict[str, Any]:
    """The JSON schema that holds at `path`, following the kinds that the document names."""
    node, here = schema, document
    for part in path:
        node = _variant(node, here, schema)
        node, here = _child(node, part), _member(here, part)
    return _variant(node, here, schema)


def _variant(node: dict[str, Any], here: Any, root: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, or the member of a union that the document names or shares most fields with."""
    node = _resolved(node, root)
    if "oneOf" in node and "discriminator" not in node and isinstance(here, dict):
        choices = [_resolved(one, root) for one in node["oneOf"]]
        return max(choices, key=lambda one: len(_own(one, choices) & set(here)))
    kind = here.get("kind") if isinstance(here, dict) else None
    target = node["discriminator"]["mapping"].get(kind) if "discriminator" in node and isinstance(kind, str) else None
    return _resolved({"$ref": target}, root) if target else node


def _member(here: Any, part: int | str) -> Any:
    if isinstance(here, dict):
        return here.get(part)
    return here[part] if isinstance(here, list) and isinstance(part, int) and part < len(here) else None


def _resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The schema behind references, and behind the alternatives of null or of a bare name."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
            continue
        structured = [other for other in node["anyOf"] if other.get("type") not in {"null", "string"}]
        if len(structured) != 1:
            break
        node = structured[0]
    return node


def _value(document: Any, path: list[int | str]) -> Any:
    for part in path:
        document = _member(document, part)
    return document


def _child(node: dict[str, Any], part: int | str) -> dict[str, Any]:
    """The schema of a member of an object or of an item of a list."""
    child: dict[str, Any] = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return child


def _kinds(node: dict[str, Any]) -> list[str]:
    return list(node.get("discriminator", {}).get("mapping", {}))


def suggestion(given: str, known: list[str]) -> str:
    """` (did you mean ...?)`, or nothing if no known name is similar. Of many only those that begin alike count."""
    if len(known) > MOST_COMPARED:
        known = heapq.nlargest(MOST_COMPARED, known, key=lambda name: _same(given[:LONGEST_NAME], name))
    return _nearest(given, known)


def _same(one: str, other: str) -> int:
    """Length of the common beginning of two texts."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _own(member: dict[str, Any], union: list[dict[str, Any]]) -> set[str]:
    """The fields of a member that not all members of its union have."""
    everywhere = set.intersection(*(set(one.get("properties", {})) for one in union))
    return set(member.get("properties", {})) - everywhere


def _nearest(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given[:LONGEST_NAME], known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close and given else ""


def _name(given: str) -> str:
    return repr(given if len(given) <= LONGEST_NAME else given[:LONGEST_NAME] + "...")


def pointer_of(path: list[int | str]) -> str:
    """An RFC 6901 pointer. Overlong names are cut."""
    return "".join("/" + str(part)[:LONGEST_NAME].replace("~", "~0").replace("/", "~1") for part in path)


def sentence(text: str) -> str:
    """The text as a sentence of bounded length. It begins with a capital unless it begins with the name of a field."""
    text = text if len(text) <= LONGEST_SENTENCE else text[:LONGEST_SENTENCE] + "..."
    begins_with_name = "_" in text.partition(" ")[0]
    return (text[:1] if begins_with_name else text[:1].upper()) + text[1:].removesuffix(".") + "."
