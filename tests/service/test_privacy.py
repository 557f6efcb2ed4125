"""Who can open what the service writes, and who gets to see a caller's key."""

from __future__ import annotations

import http.server
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from service.client import Client, ClientError, exposes_key
from service.privacy import keep_private


@pytest.fixture(autouse=True)
def _mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_are_for_this_user(tmp_path: Path) -> None:
    keep_private(tmp_path / "data")
    (tmp_path / "data" / "redis").mkdir(parents=True)
    (tmp_path / "data" / "file").write_text("")
    assert [mode(tmp_path / "data" / name) for name in (".", "redis", "file")] == [0o700, 0o700, 0o600]


def test_directories_of_earlier_versions_are_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("redis", "datasets"):
        (tmp_path / name).mkdir(0o755)
    tmp_path.chmod(0o755)
    keep_private(tmp_path)
    assert [mode(tmp_path / name) for name in (".", "redis", "datasets")] == [0o700] * 3
    assert len(caplog.messages) == 3
    keep_private(tmp_path)
    assert len(caplog.messages) == 3


def test_a_directory_that_holds_other_things_is_left(tmp_path: Path) -> None:
    """Somebody's home, for one; what is ours in it is not."""
    for name in ("redis", "documents"):
        (tmp_path / name).mkdir(0o755)
    (tmp_path / "datasets").symlink_to(tmp_path / "documents")
    tmp_path.chmod(0o755)
    keep_private(tmp_path)
    assert [mode(tmp_path / name) for name in (".", "documents", "redis")] == [0o755, 0o755, 0o700]


class Listener(http.server.BaseHTTPRequestHandler):
    """Redirects to another one, or notes what it was sent."""

    elsewhere: str | None = None
    heard: list[str]

    def do_GET(self) -> None:
        self.heard.append(str(self.headers))
        self.send_response(200 if self.elsewhere is None else self.code)
        if self.elsewhere is not None:
            self.send_header("Location", self.elsewhere + self.path)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815 - as the library calls it
    code = 302

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def listener(**attributes: object) -> Iterator[tuple[str, list[str]]]:
    heard: list[str] = []
    handler = type("Handler", (Listener,), {"heard": heard, **attributes})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", heard
        finally:
            running.shutdown()
            thread.join()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_key_does_not_follow_a_redirect(code: int) -> None:
    with listener() as (elsewhere, stolen), listener(elsewhere=elsewhere, code=code) as (url, _):
        client = Client(url, "secret", timeout=10)
        for call in (lambda: client.get("/v1/jobs"), lambda: client.post("/v1/jobs", b"{}")):
            with pytest.raises(ClientError, match=rf"redirects to {elsewhere}/v1/jobs, which is not followed.*--url"):
                call()
        assert stolen == []


def test_a_key_in_the_clear_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exposes_key("http://192.0.2.1:8000")
    assert exposes_key("HTTP://tuning.example.org")
    for url in ("https://tuning.example.org", "http://localhost:8000", "http://127.0.0.1", "http://[::1]:8000"):
        assert not exposes_key(url)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nobody is asked
    for key, expected in (("secret", True), (None, False)):
        arguments = ["jobs", "--url", "http://gradtune.invalid", *(["--key", key] if key else [])]
        shown = CliRunner().invoke(main, arguments).stderr
        assert ("anybody on the way can read the key" in shown) is expected
