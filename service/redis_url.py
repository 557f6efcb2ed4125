"""The form of GRADTUNE_REDIS_URL: what would be ignored or misread is refused. No sentence repeats a password."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

FORM: Final = (
    "Write redis://USER:PASSWORD@HOST:PORT/DB, rediss:// for TLS, or unix:///PATH?db=DB; user, password, port and "
    "database may be left out, and characters such as @ : / # % in a password are written percent-encoded."
)
_SCHEMES: Final = ("redis", "rediss", "unix")
_OPTIONS: Final = ("db", "username", "password", "client_name", "health_check_interval")
_TCP: Final = ("socket_keepalive",)
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS: Final = (*_FILES, "ssl_ca_path", "ssl_ca_data", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname")
_VALUES: Final = {
    "db": r"[0-9]{1,9}",
    "health_check_interval": r"[0-9]{1,9}",
    "socket_keepalive": r"(?i)true|false|yes|no|1|0",
    "ssl_check_hostname": r"(?i)true|false|yes|no|1|0",
    "ssl_cert_reqs": r"none|optional|required",
}


def check_url(url: str) -> None:
    """Raises: `ValueError` with a sentence where the URL is not of the form."""
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:  # its text may be a part of the password
        raise _wrong("its host or its port cannot be read (a port is a number from 1 to 65535)") from None
    _check_scheme(url, parts)
    if parts.fragment or "#" in url:
        raise _wrong("what follows a # would be ignored")
    if parts.scheme == "unix":
        _check_path(parts)
    else:
        _check_place(parts, port)
    _check_options(parts)


def _wrong(why: str) -> ValueError:
    return ValueError(f"GRADTUNE_REDIS_URL (--redis-url) is not understood: {why}. {FORM}")


def _check_scheme(url: str, parts: SplitResult) -> None:
    if url != url.strip() or re.search(r"[\s\x00-\x1f]", url):
        raise _wrong("it has a blank")
    scheme, separator, _ = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise _wrong("it does not begin with redis://, rediss:// or unix://")
    if "sentinel" in parts.scheme or "cluster" in parts.scheme:
        raise _wrong(f"{scheme}:// is not spoken; name the address of one server, the primary (docs/redis.md)")
    if parts.scheme not in _SCHEMES:
        raise _wrong(f"{scheme}:// is none of redis://, rediss:// and unix://")


def _check_place(parts: SplitResult, port: int | None) -> None:
    if not parts.hostname:
        raise _wrong("it has no host")
    if port == 0 or parts.netloc.endswith(":"):
        raise _wrong("its port is missing or 0")
    if not re.fullmatch(r"/?|/[0-9]{1,9}", parts.path):
        raise _wrong("what follows the host is no number of a database")


def _check_path(parts: SplitResult) -> None:
    if parts.netloc.rpartition("@")[2]:
        raise _wrong("a unix:// URL has no host: the path begins with a third slash")
    if parts.path in {"", "/"}:
        raise _wrong("it has no path")


def _check_options(parts: SplitResult) -> None:
    given = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in given]
    allowed = _OPTIONS + {"redis": _TCP, "rediss": _TCP + _TLS, "unix": ()}[parts.scheme]
    for name, value in given:
        if name not in allowed:
            tls = " without TLS" if name in _TLS else ""
            shown = name if re.fullmatch(r"[a-z_]{1,40}", name) else "(no name)"
            raise _wrong(f"there is no option {shown}{tls}; there are {', '.join(allowed)}")
        if names.count(name) > 1:
            raise _wrong(f"the option {name} is there twice")
        if not re.fullmatch(_VALUES.get(name, ".+"), value):
            raise _wrong(f"the option {name} has no value that it can have")
        if name in _FILES and not os.access(value, os.R_OK):
            raise _wrong(f"the file that {name} names cannot be read")
    if "db" in names and parts.path not in {"", "/"} and parts.scheme != "unix":
        raise _wrong("the database is there twice")
