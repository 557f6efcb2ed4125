"""What a hostile caller sends: valid requests that were damaged, and requests as dear as the limits allow."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.corpus.cases import cases
from tests.corpus.tables import FILES

Body = bytes | Callable[[], bytes]
JSON = {"content-type": "application/json"}
TYPES = {"csv": "text/csv", "libsvm": "text/x-libsvm"}
WORDS = [
    "",
    "*",
    "a",
    "auto",
    "kind",
    "ridge",
    "x",
    "k_fold",
    "per_feature",
    "[key]",
    "é",
    "\x00",
    "../../etc/passwd",
    "'; --",
    "\ud800",
    "NaN",
    "ds_" + "0" * 64,
    "job_" + "0" * 24,
    "2020-02-30",
    "9" * 400,
    "a" * 5000,
]
SCALARS: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    1e300,
    -1e-320,
    2**53,
    2**63,
    2**64,
    10**400,
    0.5,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    *WORDS,
]
ROUTES = [
    "/v1/jobs",
    "/v1/jobs/{job}",
    "/v1/jobs/{job}/result",
    "/v1/jobs/{job}/steps",
    "/v1/jobs/{job}/cancel",
    "/v1/jobs/{job}/predictions",
    "/v1/jobs/{job}/hyperparameters",
    "/v1/datasets",
    "/v1/datasets/{dataset}",
    "/v1/datasets/{dataset}/preview",
    "/v1/catalog",
    "/healthz",
    "/readyz",
    "/docs",
    "/openapi.json",
    "/",
    "/v1",
    "/v2/jobs",
]
PARAMETERS = [
    "status",
    "limit",
    "cursor",
    "after",
    "label.team",
    "label.",
    "view",
    "created_after",
    "created_before",
    "fields",
    "points",
    "layout",
    "names",
    "sort",
    "missing",
    "decimal",
    "thousands",
    "encoding",
    "delimiter",
    "header",
    "types",
    "name",
    "validate_only",
    "unknown",
    "",
]
VALUES = [
    "1",
    "0",
    "-1",
    "true",
    "200",
    "9999999999999999999",
    "1e9",
    "queued",
    "records",
    "columns",
    "full",
    "2026-01-01T00:00:00Z",
    "value,iteration",
    "a:number,b:category",
    "?,-",
    "tab",
    ";",
    "utf-8",
    "utf-7",
    "%00",
    "%ff",
    "\u2028",
    "x" * 3000,
    "",
]
HEADERS: list[tuple[str, list[str]]] = [
    (
        "content-type",
        ["text/plain", "application/json; charset=utf-16", "multipart/form-data", "", "x" * 500, "text/csv"],
    ),
    ("content-encoding", ["gzip", "zstd", "br", "identity", "gzip, gzip", ""]),
    ("content-digest", ["sha-256=:AAAA:", "sha-256=::", "md5=:AAAA:", "sha-256"]),
    ("prefer", ["wait=0", "wait=-1", "wait=x", "wait=99999999999", "respond-async, wait=0", "wait"]),
    ("if-none-match", ["*", 'W/"1"', '"x', ",,,", "W/" * 200]),
    ("x-request-id", ["a b", "é", "x" * 200, "ok-1"]),
    ("traceparent", ["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "x" * 5000]),
    ("authorization", ["Bearer x", "Basic eA==", "Bearer", "Bearer " + "x" * 4000]),
    ("accept", ["text/csv", "application/problem+json", "*/*;q=x", ""]),
    ("accept-encoding", ["gzip", "zstd, gzip", "*;q=0", "gzip;q=nan", "identity;q=0"]),
    ("origin", ["null", "http://evil.example", "http://localhost", "http://[::1"]),
    ("sec-fetch-site", ["cross-site", "same-origin", "none", "x"]),
    ("host", ["evil.example", "localhost", "127.0.0.1:1", "[::1", ""]),
    ("range", ["bytes=0-1", "bytes=-"]),
    ("expect", ["100-continue"]),
    ("idempotency-key", ["k", "", "x" * 400]),
]


@dataclass(frozen=True, slots=True)
class Message:
    """A request. `kind` says which generator made it."""

    kind: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


def compact(document: Any) -> bytes:
    """JSON as a caller may write it: lone surrogates, NaN and all."""
    return json.dumps(document).encode("utf-8", "surrogatepass")


class Hostile:
    """Makes messages from a seed. `jobs` and `datasets` are ids that exist; the run fills them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.jobs: list[str] = []
        self.datasets: list[str] = []
        self._specs = [case.request for case in cases()]
        self._files = [(TYPES[kind], content) for kind, content in FILES.values()]
        self._kinds: list[tuple[int, Callable[[], Message]]] = [
            (30, self.spec),
            (8, self.bytes_of_spec),
            (20, self.reading),
            (10, self.file),
            (12, self.rows),
            (6, self.change),
            (8, self.valid),
        ]

    def message(self) -> Message:
        """The next message."""
        make = self.random.choices([make for _, make in self._kinds], [weight for weight, _ in self._kinds])[0]
        message = make()
        if self.random.random() < 0.2:
            message = self._with_headers(message)
        return message

    def valid(self) -> Message:
        """A spec as it stands: it becomes a job, or is refused as the corpus says."""
        return self._posted("valid", compact(self._limited(copy.deepcopy(self.random.choice(self._specs)))))

    def spec(self) -> Message:
        """A spec in which up to four things were replaced, removed, added or renamed."""
        spec = self._limited(copy.deepcopy(self.random.choice(self._specs)))
        self._damage(spec, self.random.randint(1, 4))
        return self._posted("spec", compact(spec))

    def bytes_of_spec(self) -> Message:
        """A spec whose bytes were damaged."""
        return self._posted("bytes", self._torn(compact(self.random.choice(self._specs))))

    def reading(self) -> Message:
        """Any method on any path with any query."""
        path = self._path(self.random.choice(ROUTES))
        names = self.random.sample(PARAMETERS, self.random.choice([0, 0, 1, 2, 3]))
        query = "&".join(f"{quote(name)}={quote(self.random.choice(VALUES), safe='%,:')}" for name in names)
        method = self.random.choices(["GET", "HEAD", "OPTIONS", "DELETE", "PATCH", "PUT"], [80, 5, 5, 2, 4, 4])[0]
        return Message("reading", method, f"{path}?{query}" if names else path)

    def file(self) -> Message:
        """A file, damaged or of another type than it says, with reading options."""
        media_type, content = self.random.choice(self._files)
        if self.random.random() < 0.8:
            content = self._torn(content)
        if self.random.random() < 0.3:
            known = [
                "application/x-npy",
                "application/x-npz",
                "application/vnd.apache.parquet",
                "application/octet-stream",
            ]
            media_type = self.random.choice([*known, "application/vnd.apache.arrow.file", "text/csv", "text/x-libsvm"])
        names = self.random.sample(PARAMETERS, self.random.choice([0, 0, 1, 2]))
        query = "&".join(f"{quote(name)}={quote(self.random.choice(VALUES), safe='%,:')}" for name in names)
        return Message("file", "POST", f"/v1/datasets?{query}", {"content-type": media_type}, content)

    def rows(self) -> Message:
        """Rows to predict, damaged."""
        width = self.random.choice([0, 1, 2, 3, 4, 4, 4, 60])
        rows = [
            [round(self.random.gauss(0, 1), 3) for _ in range(width)] for _ in range(self.random.choice([0, 1, 3, 50]))
        ]
        asked: dict[str, Any] = {"x": rows}
        if self.random.random() < 0.3:
            asked["features"] = list("abcd"[:width])
        if self.random.random() < 0.7:
            self._damage(asked, self.random.randint(1, 3))
        return Message("rows", "POST", self._path("/v1/jobs/{job}/predictions"), JSON, compact(asked))

    def change(self) -> Message:
        """A cancellation or a deletion."""
        method, path = self.random.choice(
            [("POST", "/v1/jobs/{job}/cancel"), ("DELETE", "/v1/jobs/{job}"), ("DELETE", "/v1/datasets/{dataset}")]
        )
        return Message("change", method, self._path(path))

    def _posted(self, kind: str, body: bytes) -> Message:
        checked = self.random.random() < 0.7
        return Message(kind, "POST", "/v1/jobs?validate_only=true" if checked else "/v1/jobs", JSON, body)

    def _limited(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The same, of few evaluations: the fuzzer is about the API, and its jobs end soon."""
        spec.setdefault("limits", {"evaluations": 3, "seconds": 5})
        return spec

    def _path(self, route: str) -> str:
        def one_of(ids: list[str], prefix: str, digits: int) -> str:
            if ids and self.random.random() < 0.7:
                return self.random.choice(ids)
            return self.random.choice(
                [prefix + "0" * digits, prefix, "..", "%2e%2e%2f", "%00", "a" * 3000, quote("é/é")]
            )

        return route.replace("{job}", one_of(self.jobs, "job_", 24)).replace(
            "{dataset}", one_of(self.datasets, "ds_", 64)
        )

    def _with_headers(self, message: Message) -> Message:
        headers = dict(message.headers)
        for name, values in self.random.sample(HEADERS, self.random.randint(1, 3)):
            headers[name] = self.random.choice(values)
        return Message(message.kind, message.method, message.path, headers, message.content)

    def _damage(self, document: Any, times: int) -> None:
        changes = ["replace", "replace", "remove", "add", "copy", "many"]
        for _ in range(times):
            places = list(_places(document))
            if not places:
                return
            container, key = self.random.choice(places)
            change = self.random.choice(changes)
            value = copy.deepcopy(self.random.choice(SCALARS))
            if change == "replace":
                container[key] = value
            elif change == "remove":
                del container[key]
            elif change == "copy":
                container[key] = copy.deepcopy(self.random.choice(places)[0])
            elif change == "many":
                container[key] = [copy.deepcopy(container[key])] * self.random.choice([2, 30, 300])
                changes = changes[:-1]  # many of many of many would be gigabytes
            elif isinstance(container, dict):
                container[self.random.choice(WORDS)] = value
            else:
                container.insert(key, value)

    def _torn(self, content: bytes) -> bytes:
        torn = bytearray(content)
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(torn) + 1)
            change = self.random.choice(["flip", "cut", "insert", "repeat", "end"])
            if change == "flip" and at < len(torn):
                torn[at] ^= 1 << self.random.randrange(8)
            elif change == "cut":
                del torn[at : at + self.random.choice([1, 5, 100])]
            elif change == "insert":
                pieces = [
                    b"\x00",
                    b"NaN",
                    b"[" * 2000,
                    b'{"a":' * 2000,
                    b"\xff\xfe",
                    b"1" * 5000,
                    b'"\\ud800"',
                    b"\n",
                    b",",
                ]
                torn[at:at] = self.random.choice(pieces)
            elif change == "repeat":
                torn[at:at] = torn[at : at + 200] * self.random.choice([1, 5, 50])
            elif change == "end":
                del torn[at:]
        return bytes(torn)


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with each of its keys; of long lists the first ones."""
    found: list[tuple[Any, Any]] = []
    waiting = [node]
    while waiting:
        here = waiting.pop()
        pairs = (
            list(here.items())
            if isinstance(here, dict)
            else list(enumerate(here))[:8]
            if isinstance(here, list)
            else []
        )
        found += [(here, key) for key, _ in pairs]
        waiting += [value for _, value in pairs]
    return found
