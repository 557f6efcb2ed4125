"""API keys, and the refusal to be open to other machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.keys import create_key
from service.server import address, bind, check_exposure
from service.settings import ConfigurationError, Settings
from tests.contract.specs import document
from tests.service.api import Api, serving
from worker.embedded import EmbeddedServer

FIRST, SECOND, UNKNOWN = create_key(), create_key(), create_key()


@pytest.fixture(scope="module")
def closed(idle_server: EmbeddedServer) -> Iterator[Api]:
    """An API that knows two keys."""
    hashes = f" {FIRST[1]},{SECOND[1].upper()} "
    with serving(Settings(redis_url=idle_server.url, api_key_hashes=hashes)) as running:
        yield running


def test_keys_are_random_and_only_their_hashes_are_configured() -> None:
    assert len({create_key()[0] for _ in range(50)}) == 50
    key, digest = FIRST
    assert key.startswith("gt_")
    assert len(key) > 40
    assert key not in Settings(api_key_hashes=digest).model_dump_json()


@pytest.mark.parametrize("key", [FIRST[0], SECOND[0]], ids=["first", "second"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_known_key_is_let_in(closed: Api, scheme: str, key: str) -> None:
    headers = {"Authorization": f"{scheme} {key}"}
    created = closed.create(document(), **headers)
    assert created.status_code == 202
    assert closed.get(created.headers["location"], headers=headers).status_code == 200


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", f"Bearer {UNKNOWN[0]}", f"Basic {FIRST[0]}", FIRST[0], f"Bearer {FIRST[1]}",
     f"Bearer {FIRST[0]}x", f"Bearer {FIRST[0][:-1]}", "Bearer ä\xff", "Bearer " + "x" * 10_000],
    ids=["nothing", "empty", "no key", "unknown", "other scheme", "no scheme", "hash", "longer", "shorter", "no ASCII",
         "long"],
)  # fmt: skip
def test_anybody_else_is_not(closed: Api, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for method, path in (
        ("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/v1/jobs/x"), ("DELETE", "/v1/jobs/x"),
        ("GET", "/v1/jobs/x/result"), ("GET", "/v1/jobs/x/steps"), ("POST", "/v1/jobs/x/cancel"),
        ("POST", "/v1/jobs/x/predictions"),
        ("GET", "/v1/catalog"),
    ):  # fmt: skip
        reply = closed.request(method, path, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (401, "unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"


def test_probes_and_the_document_are_open(closed: Api) -> None:
    assert closed.get("/healthz").status_code == 200
    assert closed.get("/readyz").status_code == 503  # without a worker
    assert closed.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_an_open_service_is_for_this_machine_alone(host: str) -> None:
    with pytest.raises(ConfigurationError, match="gradtune keys create"):
        check_exposure(Settings(host=host))
    check_exposure(Settings(host=host, api_key_hashes=FIRST[1]))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    check_exposure(Settings(host=host))


def test_an_address_that_is_taken_or_unknown_is_reported() -> None:
    with bind(Settings(port=0)) as listener:
        port = listener.getsockname()[1]
        assert address(Settings(), listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(
            ConfigurationError, match=f"Cannot listen on 127.0.0.1:{port}: .*Choose another --port or --host"
        ):
            bind(Settings(port=port))
    with pytest.raises(ConfigurationError, match=r"Cannot listen on no\.such\.host\.invalid"):
        bind(Settings(host="no.such.host.invalid"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"workers": 0},
        {"api_key_hashes": "secret"},
        {"api_key_hashes": f"{FIRST[1]},"},
        {"redis_url": "localhost:6379"},
        {"redis_url": "http://localhost"},
        {"max_queued": 0},
        {"retention_days": 0},
        {"log_level": "loud"},
        {"blas_threads": 0},
    ],
)
def test_a_wrong_setting_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_settings_come_from_the_environment_and_go_back_into_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRADTUNE_PORT", "8123")
    monkeypatch.setenv("GRADTUNE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("GRADTUNE_REDIS_URL", "")  # as good as not set
    monkeypatch.setenv("GRADTUNE_RETENTION_DAYS", "0.5")
    settings = Settings(host="127.0.0.2")
    assert (settings.port, settings.data_dir, settings.redis_url) == (8123, tmp_path, None)
    assert settings.retention == 43_200
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    # a child is told the shares of cores and memory that this process worked out
    shares = {"starts_at_once": settings.share_of_cores, "job_memory_mb": settings.job_memory}
    assert Settings() == settings.model_copy(update=shares)
