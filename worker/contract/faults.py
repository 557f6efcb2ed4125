"""From what validation says to what a caller can act on: the place, the kind and the remedy, never the input itself."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MOST = 20  # faults reported for one request
LONGEST = 300  # characters of a sentence
NAME = 60  # characters of a caller's own name that are repeated to them


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a request: where (a JSON pointer), which kind, and the sentence with the remedy."""

    pointer: str
    code: str
    detail: str


def schema_faults(error: ValidationError, body: bytes, model: type[BaseModel]) -> list[Fault]:
    """The faults behind a validation error of `model` on a JSON `body`, at most `MOST` of them."""
    document = _parsed(body)
    details = error.errors(include_input=False, include_url=False)
    schema = model.model_json_schema()
    return [_fault(detail, document, schema) for detail in details[:MOST]]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _fault(detail: ErrorDetails, document: Any, schema: dict[str, Any]) -> Fault:
    code, path = detail["type"], _path(detail["loc"], document)
    context = detail.get("ctx", {})
    text = detail["msg"].removeprefix("Value error, ")
    if code in {"union_tag_invalid", "union_tag_not_found"}:
        known = [tag.strip(" '") for tag in context.get("expected_tags", "").split(",") if tag]
        known = known or _kinds(_at(schema, schema, path, document))
        path, given = [*path, "kind"], str(context.get("tag", ""))
        code = "unknown_kind" if given else "missing"
        text = f"There is no kind {_name(given)}" if given else "The field kind is required"
        text += f"{_nearest(given, known)}; known: {', '.join(known)}"
    elif code in {"extra_forbidden", "unexpected_keyword_argument"}:
        known = list(_at(schema, schema, path[:-1], document).get("properties", {}))
        code, text = "unknown_field", f"There is no field {_name(str(path[-1]))} here{_nearest(str(path[-1]), known)}"
    elif code == "json_invalid":
        code, text = "invalid_json", text.removeprefix("Invalid JSON: ")
    return Fault(_pointer(path), code, _sentence(text))


def _path(location: tuple[int | str, ...], document: Any) -> list[int | str]:
    """The location without the tags that validation adds for each union it passes."""
    path: list[int | str] = []
    here = document
    for part in location:
        if isinstance(here, dict) and part not in here and part == here.get("kind"):
            continue
        path.append(part)
        inside = isinstance(here, dict) or (isinstance(here, list) and isinstance(part, int) and part < len(here))
        here = (here.get(part) if isinstance(here, dict) else here[part]) if inside else None
    return path


def _at(node: dict[str, Any], root: dict[str, Any], path: list[int | str], document: Any) -> dict[str, Any]:
    """The JSON schema that holds at `path`, following the kinds that the document names."""
    node = _resolved(node, root)
    for part in [*path, None]:
        if isinstance(document, dict) and "discriminator" in node:
            target = node["discriminator"]["mapping"].get(document.get("kind"))
            node = _resolved({"$ref": target}, root) if target else node
        if part is None:
            return node
        properties = node.get("properties", {})
        node = _resolved(properties.get(part, {}), root)
        document = document.get(part) if isinstance(document, dict) else None
    return node


def _resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def _kinds(node: dict[str, Any]) -> list[str]:
    return list(node.get("discriminator", {}).get("mapping", {}))


def _nearest(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given[:NAME], known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close and given else ""


def _name(given: str) -> str:
    return repr(given if len(given) <= NAME else given[:NAME] + "...")


def _pointer(path: list[int | str]) -> str:
    """An RFC 6901 pointer; a caller's own overlong names are cut."""
    return "".join("/" + str(part)[:NAME].replace("~", "~0").replace("/", "~1") for part in path)


def _sentence(text: str) -> str:
    text = text if len(text) <= LONGEST else text[:LONGEST] + "..."
    return text[:1].upper() + text[1:].removesuffix(".") + "."
