"""How a caller says that a file is read: by the query, by the Content-Type, by nothing but its format."""

from __future__ import annotations

from fastapi import Request

from service.bodies import header_fault
from service.problems import InvalidRequest, UnsupportedMediaType
from worker.contract.dataset import Format, ReadingOptions
from worker.contract.reading import parse_options, unfit
from worker.datasets import RefusedError
from worker.datasets.sniff import recognize


def query_options(request: Request) -> ReadingOptions:
    """The reading options of the query. Raises InvalidRequest for what is none."""
    options = parse_options(request.query_params.multi_items())
    if isinstance(options, list):
        raise InvalidRequest("A parameter is wrong.", errors=options)
    return options


def typed_options(asked: ReadingOptions, media_type: str, parameters: str) -> ReadingOptions:
    """The options with what text/csv says by `header` (RFC 4180) and `charset`. Raises InvalidRequest."""
    if media_type != "text/csv":
        return asked
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        name, value = name.strip().lower(), value.strip(' "').lower()
        if name == "header":
            header = {"present": True, "absent": False}.get(value)
            if header is None:
                raise header_fault("content-type", "invalid_parameter", "header is `present` or `absent`.")
            if asked.header not in {None, header}:
                raise header_fault("content-type", "invalid_parameter", "The option `header` says the opposite.")
            asked = asked.model_copy(update={"header": header})
        elif name == "charset":
            asked = _with_charset(asked, value)
    return asked


def _with_charset(asked: ReadingOptions, charset: str) -> ReadingOptions:
    named = parse_options([("encoding", charset)])
    if isinstance(named, list):
        raise header_fault("content-type", "invalid_parameter", f"charset: {named[0].detail}")
    if asked.encoding is not None and asked.encoding != named.encoding:
        raise header_fault("content-type", "invalid_parameter", "The option `encoding` names another one than charset.")
    return asked.model_copy(update={"encoding": named.encoding})


def require_fit(options: ReadingOptions, kind: Format) -> None:
    """Raise InvalidRequest for options that mean nothing to a format."""
    if found := unfit(options, kind):
        raise InvalidRequest("A parameter does not fit the format.", errors=found)


def recognize_empty(media_type: str) -> Format:
    """The format of a body without a byte, which is none that is not text."""
    try:
        return recognize(media_type, b"")
    except RefusedError as refusal:
        raise UnsupportedMediaType(refusal.detail) from None
