"""Hosts made of network namespaces on one bridge, with links that can be cut. Needs root and iproute2 on Linux."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000
HOSTS = ("server", "api", "worker 1", "worker 2")


class Network:
    """A namespace with a bridge, in which this process lives while the network is there, and one for each host."""

    def __init__(self) -> None:
        self._prefix = f"chaos{os.getpid()}"
        self._home = f"{self._prefix}-home"
        self._names = {host: f"{self._prefix}-{number}" for number, host in enumerate(HOSTS, 1)}
        self._made: list[str] = []
        self._down: set[str] = set()
        self._outside = -1

    @property
    def hosts(self) -> dict[str, tuple[str, str]]:
        """Namespace and address of each host."""
        return {host: (name, f"10.77.0.{10 + number}") for number, (host, name) in enumerate(self._names.items())}

    @property
    def whole(self) -> list[str]:
        """The hosts whose link is up."""
        return [host for host in HOSTS if host not in self._down]

    def build(self) -> None:
        """Raises: `CalledProcessError`, `OSError` where that is not allowed; call `remove` in any case."""
        for name in (self._home, *self._names.values()):
            _ip("netns", "add", name)
            self._made.append(name)
        _ip("-n", self._home, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._home, "addr", "add", "10.77.0.1/24", "dev", "bridge")
        for device in ("lo", "bridge"):
            _ip("-n", self._home, "link", "set", device, "up")
        for number, (host, (name, address)) in enumerate(self.hosts.items(), 1):
            end = _end(host)
            _ip("-n", self._home, "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", self._home, "link", "set", end, "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
            assert number
        self._enter()

    def cut(self, host: str) -> None:
        """Everything to and from a host is dropped silently; its processes notice nothing but silence."""
        _ip("link", "set", _end(host), "down")  # we are inside
        self._down.add(host)

    def heal(self, host: str) -> None:
        _ip("link", "set", _end(host), "up")
        self._down.discard(host)

    def remove(self) -> None:
        """Leave, and remove everything that was made."""
        if self._outside >= 0:
            _setns(self._outside)
            os.close(self._outside)
            self._outside = -1
        while self._made:
            subprocess.run(("ip", "netns", "del", self._made.pop()), check=False, capture_output=True, timeout=20)

    def _enter(self) -> None:
        self._outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        home = os.open(Path("/run/netns") / self._home, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(home)  # this thread, and those that it starts
        finally:
            os.close(home)


def possible() -> str | None:
    """Why there can be no network of namespaces here; `None` if it can be tried."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    return None if shutil.which("ip") else "network namespaces need iproute2"


def _end(host: str) -> str:
    return "to-" + host.replace(" ", "")


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True, timeout=20)


def _setns(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
