"""Careful callers: they try again when they get no reply, and remember what the service has acknowledged."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class Callers:
    """Threads that submit the specs in turn, each waiting for its job's end before the next, until told to stop."""

    ports: list[int]
    specs: list[dict[str, Any]]
    count: int = 3
    acknowledged: dict[str, int] = field(default_factory=dict)  # id of a job -> number of its spec
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    without_reply: int = 0
    unavailable: int = 0
    errors: list[BaseException] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(self.count)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _call(self, caller: int) -> None:
        try:
            for number in itertools.count(caller):
                if self._stopping.is_set():
                    return
                which = number % len(self.specs)
                job = self.insist("POST", "/v1/jobs", self.specs[which])
                self.acknowledged[job["id"]] = which
                while not job["done"]:
                    job = self.insist("GET", f"/v1/jobs/{job['id']}")
                self.ends[job["id"]] = job
        except BaseException as error:  # noqa: BLE001 - raised again where the callers are waited for
            self.errors.append(error)

    def insist(self, method: str, path: str, document: Any = None) -> Any:
        """Ask one address after the other until there is an answer."""
        body = None if document is None else json.dumps(document)
        deadline = time.monotonic() + 90
        for port in itertools.cycle(self.ports):
            assert time.monotonic() < deadline, "nobody answers"
            with suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request(method, path, body, {"Content-Type": "application/json", "Prefer": "wait=5"})
                reply = connection.getresponse()
                answer = json.loads(reply.read())
                connection.close()
                if reply.status < 400:
                    return answer
                assert reply.status == 503, answer
                self.unavailable += 1
                continue
            self.without_reply += 1
            time.sleep(0.05)
        return None
