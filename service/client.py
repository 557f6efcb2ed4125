"""A small HTTP client for the command line, on the standard library alone."""

from __future__ import annotations

import gzip
import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class ClientError(Exception):
    """The service cannot be reached, or replied with a problem."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: its status, its JSON (None without a body) and its ETag."""

    status: int
    json: Any
    etag: str | None


@dataclass(frozen=True, slots=True)
class Client:
    """Talks to the service at `url`; `key` is sent as a bearer token; `timeout` is in seconds."""

    url: str
    key: str | None = None
    timeout: float = 90.0

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Reply:
        """GET a path. Raises ClientError on any status from 400 up."""
        return self._send("GET", path, None, headers)

    def post(self, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None) -> Reply:
        """POST JSON to a path. Raises ClientError on any status from 400 up."""
        return self._send("POST", path, body, {"Content-Type": "application/json", **(headers or {})})

    def delete(self, path: str) -> Reply:
        """DELETE a path. Raises ClientError on any status from 400 up."""
        return self._send("DELETE", path, None, None)

    def send(self, path: str, parts: Iterable[bytes], headers: Mapping[str, str]) -> Reply:
        """POST a body of known length (`Content-Length`) part by part. Raises ClientError on any status from 400 up."""
        return self._send("POST", path, parts, headers)

    def wait(self, path: str, etag: str | None, seconds: int) -> Reply:
        """GET a job once it has changed since `etag`, or after `seconds`."""
        headers = {"Prefer": f"wait={seconds}"} | ({"If-None-Match": etag} if etag else {})
        return self.get(path, headers=headers)

    def _send(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None, headers: Mapping[str, str] | None
    ) -> Reply:
        try:
            url = self.url.rstrip("/") + path
            request = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310 - the user's
            request.add_header("Accept-Encoding", "gzip")
            if self.key:
                request.add_header("Authorization", f"Bearer {self.key}")
            with self._opener().open(request, timeout=self.timeout) as reply:
                text = _content(reply)
                return Reply(reply.status, json.loads(text) if text else None, reply.headers.get("ETag"))
        except urllib.error.HTTPError as error:
            text = _content(error)
            if error.code == 304:
                return Reply(304, None, error.headers.get("ETag"))
            if 300 <= error.code < 400:
                raise ClientError(_elsewhere(self.url, error.headers.get("Location", "another place"))) from None
            raise ClientError(_explain(error.code, text)) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ClientError(f"{self.url} cannot be reached: {error}") from None

    def _opener(self) -> urllib.request.OpenerDirector:
        """No proxy of the environment stands between a machine and itself."""
        proxies = [urllib.request.ProxyHandler({})] if is_local(self.url) else []
        return urllib.request.build_opener(_Stay, *proxies)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the key, and the body of a request, to wherever it points."""

    def redirect_request(self, *_arguments: Any) -> None:
        """Leave the reply as it is."""


def is_local(url: str) -> bool:
    """Whether a URL leads to this machine."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exposes_key(url: str) -> bool:
    """Whether a key that is sent there can be read on its way."""
    return url.lower().startswith("http://") and not is_local(url)


def _elsewhere(url: str, location: str) -> str:
    return (
        f"{url} redirects to {location[:500]}, which is not followed: it would get the key and the data. If that is "
        "the service, give its address as --url or GRADTUNE_URL."
    )


def _content(reply: http.client.HTTPResponse | urllib.error.HTTPError) -> bytes:
    """The body as it was before it was compressed. Raises ClientError for one that is not whole."""
    body: bytes = reply.read()
    if reply.headers.get("Content-Encoding") != "gzip" or not body:
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise ClientError(f"The body of the reply is no gzip: {error}.") from None


def _explain(status: int, text: bytes) -> str:
    try:
        problem = json.loads(text)
        faults = "".join(f"\n  {fault['pointer'] or '/'}: {fault['detail']}" for fault in problem["errors"])
        return f"{status} {problem['title']}: {problem['detail']}{faults}"
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
