"""A TCP forwarder between clients and a server: its address stays while servers change; it can break an exchange."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import Self

Address = tuple[str, int] | str  # TCP, or the path of a unix socket


class Forwarder:
    """Forwards connections to `target`.

    After `arm(n)` the n-th exchange from then on (a request with its reply) fails, before the server sees the request
    or after it has acted on it: the connection is closed. `failed` tells whether that has happened.
    """

    def __init__(self, target: Address) -> None:
        self.target = target
        self.failed = False
        self.exchanges = 0
        self._at = 0
        self._after = False
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._thread = threading.Thread(target=self._accept)

    @property
    def url(self) -> str:
        """The URL of the store, as its clients see it."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.cut()

    def arm(self, number: int, *, after: bool) -> None:
        """Let the exchange `number` from now on fail; 0: none."""
        with self._lock:
            self.failed, self.exchanges, self._at, self._after = False, 0, number, after

    def cut(self) -> None:
        """Break every connection."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), _connected(self.target) as server:
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            try:
                self._forward(client, server)
            finally:
                with self._lock:
                    self._pairs.discard(pair)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if client in ready:
                if not (request := client.recv(1 << 20)) or ((fails := self._counted()) and not self._after):
                    return
                server.sendall(request)
                if fails:
                    # A request in several pieces has no reply yet: then its first piece was all of it.
                    select.select([server], [], [], 0.5)
                    return
            if server in ready:
                if not (reply := server.recv(1 << 20)):
                    return
                client.sendall(reply)

    def _counted(self) -> bool:
        with self._lock:
            self.exchanges += 1
            fails = self.exchanges == self._at
            self.failed = self.failed or fails
            return fails


def _connected(target: Address) -> socket.socket:
    if isinstance(target, str):
        server = socket.socket(socket.AF_UNIX)
        server.connect(target)
        return server
    return socket.create_connection(target)
