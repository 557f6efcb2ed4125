"""The API process: uvicorn around the application, on a socket that it binds or is handed."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, cast

import uvicorn
from starlette.datastructures import State

from service.descriptors import raise_limit
from service.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.sockets import Sockets

GRACE = 5  # seconds that requests under way get to end after SIGTERM


class _Server(uvicorn.Server):
    """Lets long polls return when the server is told to exit, instead of waiting for them."""

    def __init__(self, config: uvicorn.Config, state: State, sockets: Sockets) -> None:
        super().__init__(config)
        self.state, self.sockets = state, sockets

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self.sockets.tend(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the requests under way."""
        try:
            await super().shutdown(sockets)
        finally:
            self.sockets.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        doorbell = getattr(self.state, "doorbell", None)
        if doorbell is not None:  # the signal may come before the application has started
            doorbell.close()
        # not uvicorn's own, which raises the signal again after a clean end: the exit status would be that of a crash
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def check_exposure(settings: Settings) -> None:
    """Raise ConfigurationError rather than offer an open service to other machines."""
    if not settings.is_loopback and not settings.key_hashes:
        raise ConfigurationError(
            f"Listening on {settings.host} needs API keys: run `gradtune keys create` and set GRADTUNE_API_KEY_HASHES."
        )


def bind(settings: Settings) -> socket.socket:
    """A listening socket. Raises ConfigurationError when the address cannot be had."""
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        # the text of an address that cannot be bound repeats the address
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ConfigurationError(f"Cannot listen on {where}: {reason}. Choose another --port or --host.") from None


def address(settings: Settings, listener: socket.socket) -> str:
    """The URL under which the service is reached from this machine."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def make_server(app: FastAPI, settings: Settings, *, grace: int = GRACE) -> uvicorn.Server:
    """The server of an application, with the limits of connections."""
    from service.sockets import Connection, Limits, Sockets  # noqa: PLC0415 - as below

    sockets = Sockets(Limits.of(settings, raise_limit()))
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(Connection, sockets)),
        ws="none",
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=grace,
    )
    return _Server(config, app.state, sockets)


def serve_api(settings: Settings, listener: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT."""
    from service.app import create_app  # noqa: PLC0415 - a second to import, and only this process needs it

    app = create_app(settings)
    gc.collect()
    gc.freeze()  # modules and schemas stay: to look through them again costs large requests a tenth of a second
    gc.set_threshold(10_000)  # nor does every 700th new object of a large request need a look at the others
    if not settings.key_hashes:
        logging.getLogger("uvicorn.error").warning("no API keys are configured: everybody on this machine has access")
    make_server(app, settings).run(sockets=[listener])
