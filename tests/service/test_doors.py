"""What a browser can be made to send to a service on loopback, and what it cannot."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from service.doors import host_name, known_names
from service.keys import create_key
from service.problems import MEDIA_TYPE
from service.settings import Settings
from tests.contract.specs import document
from tests.service.api import Api, serving
from worker.embedded import EmbeddedServer

PAGE = "https://app.example.org"
KEY, HASH = create_key()
CSV = {"file": ("table.csv", b"a,b\n1,2\n3,4\n", "text/csv")}
FOREIGN = [
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
]
OWN = [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]


@pytest.fixture(scope="module")
def named(idle_server: EmbeddedServer) -> Iterator[Api]:
    """As behind a proxy on the same machine, with a page that may use it."""
    settings = Settings(
        redis_url=idle_server.url, api_key_hashes=HASH, allowed_hosts="Tuning.example.org, *.example.com",
        cors_origins=f"{PAGE},http://localhost:3000",
    )  # fmt: skip
    with serving(settings) as running:
        running.headers["Authorization"] = f"Bearer {KEY}"
        yield running


@pytest.mark.parametrize("host", ["evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example:{port}",
    "evil.example:80@localhost", "192.0.2.1", "", "[::2]:{port}", "localhost:{port}:1"])  # fmt: skip
def test_a_name_that_points_at_this_machine_is_not_one_of_its_own(api: Api, host: str) -> None:
    """DNS rebinding: the page and the service have the same origin then, and the browser lets the page read all."""
    headers = {"Host": host.format(port=api.base_url.port)}
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/healthz"), ("GET", "/openapi.json")):
        reply = api.request(method, path, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (421, "misdirected-request")
        assert "GRADTUNE_ALLOWED_HOSTS" in reply.json()["detail"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:{port}", "localhost.", "127.0.0.1:99", "[::1]:{port}"])
def test_the_names_of_loopback_are(api: Api, host: str) -> None:
    reply = api.get("/v1/jobs", headers={"Host": host.format(port=api.base_url.port)})
    assert reply.status_code == 200


def test_a_request_without_a_name_comes_from_no_browser(api: Api) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"200"


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_sites_page_changes_nothing(api: Api, headers: dict[str, str]) -> None:
    """A form needs no leave of the service: the browser sends it, and only hides the reply from the page."""
    job = api.created(document())
    for reply in (
        api.post("/v1/datasets", files=CSV, headers=headers),
        api.post("/v1/datasets", content=b"a\n1\n", headers={**headers, "Content-Type": "text/csv"}),
        api.post("/v1/jobs", json=document(), headers=headers),
        api.post(f"/v1/jobs/{job['id']}/cancel", headers=headers),
        api.delete(f"/v1/jobs/{job['id']}", headers=headers),
    ):
        assert (reply.status_code, reply.json()["code"]) == (403, "cross-origin")
        assert "GRADTUNE_CORS_ORIGINS" in reply.json()["detail"]
    assert api.get("/v1/datasets", headers=headers).json()["data"] == []
    assert [item["id"] for item in api.get("/v1/jobs", headers=headers).json()["data"]] == [job["id"]]
    assert api.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"


@pytest.mark.parametrize("headers", [*OWN, {"Origin": "http://{host}"}], ids=str)
def test_programs_and_the_services_own_pages_do(api: Api, headers: dict[str, str]) -> None:
    host = api.base_url.netloc.decode()
    given = {name: value.format(host=host) for name, value in headers.items()}
    assert api.create(document(), **given).status_code == 202


def test_what_a_page_can_send_without_leave_is_no_json(api: Api) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert api.post("/v1/jobs", content=b"{}", headers={"Content-Type": media_type}).status_code == 415


def test_without_the_setting_no_page_is_let_in(api: Api) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    for reply in (api.options("/v1/jobs", headers=asked), api.get("/v1/jobs", headers={"Origin": PAGE})):
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_the_names_of_a_proxy_are_a_setting(named: Api) -> None:
    for host in ("tuning.example.org", "TUNING.example.org:8443", "a.example.com", "a.b.example.com", "localhost"):
        assert named.get("/v1/jobs", headers={"Host": host}).status_code == 200
    for host in ("example.org", "example.com", "xexample.com", "tuning.example.org.evil.example"):
        assert named.get("/v1/jobs", headers={"Host": host}).status_code == 421
    # probes of a container know its address alone, and there are keys
    for path in ("/healthz", "/readyz"):
        assert named.get(path, headers={"Host": "10.1.2.3:8000"}).status_code in {200, 503}


def test_a_listed_page_may_use_the_service(named: Api) -> None:
    asked = {
        "Origin": PAGE, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }  # fmt: skip
    leave = named.options("/v1/jobs", headers=asked)
    assert (leave.status_code, leave.headers["access-control-allow-origin"]) == (200, PAGE)
    assert "idempotency-key" in leave.headers["access-control-allow-headers"]
    cross = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
    created = named.create(document(), **cross)
    assert created.status_code == 202
    exposed = {name.strip().lower() for name in created.headers["access-control-expose-headers"].split(",")}
    assert exposed >= {"location", "etag", "retry-after", "x-request-id"}
    job = created.headers["location"]
    for reply in (created, named.get("/v1/jobs/nothing", headers=cross), named.delete(job, headers=cross)):
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "origin" in reply.headers["vary"].lower()
        assert "access-control-allow-credentials" not in reply.headers
    refused = named.get("/v1/jobs", headers={**cross, "Authorization": "Bearer none"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)


def test_others_may_not(named: Api) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = named.options("/v1/jobs", headers=asked)
    assert (reply.status_code, reply.headers["content-type"]) == (403, MEDIA_TYPE)
    assert "access-control-allow-origin" not in reply.headers
    assert named.create(document(), Origin="https://evil.example").status_code == 403


def test_names_of_each_kind_of_address() -> None:
    assert known_names(Settings(host="0.0.0.0", api_key_hashes=HASH)) is None
    assert known_names(Settings(host="0.0.0.0", api_key_hashes=HASH, allowed_hosts="a.example")) == {"a.example"}
    assert known_names(Settings(host="127.8.8.8")) == {"localhost", "127.0.0.1", "[::1]", "127.8.8.8"}
    assert known_names(Settings(host="::1", allowed_hosts="*")) is None
    assert host_name("[2001:DB8::1]:80") == "[2001:db8::1]"


@pytest.mark.parametrize("name", ["https://a.example", "a.example:80", "a b", "*.*.example", "a/b"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(ValidationError, match="without scheme and port"):
        Settings(allowed_hosts=name)


@pytest.mark.parametrize(
    "origin", ["*", "null", "a.example", "https://a.example/", "https://A.example", "https://a.example:443", "ftp://a"]
)
def test_an_origin_is_what_a_browser_writes(origin: str) -> None:
    with pytest.raises(ValidationError, match="scheme, name and port"):
        Settings(cors_origins=origin)
