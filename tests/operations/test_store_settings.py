"""The job store's own settings: what forbids a start, what is said aloud, and what /readyz repeats."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.preflight import Findings, examine_at, judge
from service.settings import Settings
from tests.contract.specs import document
from tests.operations.deployments import Deployed, deployed
from tests.servers import binaries
from tests.service.api import eventually, serving
from tests.system.processes import running
from worker import store

LIMITED = ("--maxmemory", "100mb", "--maxmemory-policy")
NOTHING_KEPT = "The job store keeps nothing on disk: every job is lost with its process. Set `appendonly yes`."


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GRADTUNE_")]:
        monkeypatch.delenv(name)


def started(command: str, url: str) -> Result:
    return CliRunner().invoke(main, [command, "--redis-url", url])


def test_a_server_that_evicts_jobs_is_refused(tmp_path: Path) -> None:
    with deployed(tmp_path, "--appendonly", "yes", *LIMITED, "allkeys-lru") as server:
        for command in ("serve", "api", "worker"):
            result = started(command, server.url)
            assert result.exit_code == 1
            assert result.stderr.splitlines()[-1] == (
                "Error: The job store deletes keys when its memory is full (maxmemory-policy allkeys-lru), jobs among "
                "them. Set `maxmemory-policy noeviction`, in its configuration file too."
            )


def warnings(server: Deployed) -> list[str]:
    """What /readyz says, with a worker that is alive as far as anybody can tell."""
    server.client.sadd("rq:workers:gradtune", "rq:worker:w")
    server.client.hset("rq:worker:w", "state", "idle")
    with serving(Settings(redis_url=server.url)) as api:
        reply = api.get("/readyz")
        assert reply.status_code == 200
        return list(reply.json()["warnings"])


@pytest.mark.parametrize("name", binaries())
def test_a_sound_server_has_no_warnings(tmp_path: Path, name: str) -> None:
    with deployed(tmp_path, "--appendonly", "yes", *LIMITED, "noeviction", binary=binaries()[name]) as server:
        assert warnings(server) == []
        server.client.config_set("maxmemory-policy", "allkeys-lfu")
        (evicts,) = warnings(server)  # too late to refuse
        assert "maxmemory-policy allkeys-lfu" in evicts
        server.client.config_set("maxmemory", 0)
        assert warnings(server) == []


@pytest.mark.parametrize("name", binaries())
def test_what_a_server_may_lose_is_said(tmp_path: Path, name: str) -> None:
    with deployed(tmp_path, "--save", "", binary=binaries()[name]) as server:
        assert warnings(server) == [NOTHING_KEPT]
        server.client.config_set("save", "60 1")
        assert "keeps snapshots only" in warnings(server)[0]
        server.client.config_set("appendonly", "yes")
        server.client.config_set("maxmemory", "100mb")
        server.client.config_set("maxmemory-policy", "volatile-ttl")
        (volatile,) = warnings(server)
        assert "deletes ended jobs before their time" in volatile


def test_a_server_that_hides_its_settings_is_taken_with_a_warning(tmp_path: Path) -> None:
    with deployed(tmp_path, "--save", "", "--rename-command", "CONFIG", "") as server:
        assert "keeps no append-only file" in warnings(server)[0]
        server.client.acl_setuser("default", enabled=True, nopass=True, commands=["-info"])
        (hidden,) = warnings(server)
        assert "does not let its settings be read (INFO)" in hidden


def test_warnings_are_logged_once_at_start(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with deployed(tmp_path, "--save", "") as server, serving(Settings(redis_url=server.url)) as api:
        with running("worker", log=log, GRADTUNE_REDIS_URL=server.url):
            eventually(lambda: api.get("/readyz").status_code == 200)
        assert log.read_text().count(NOTHING_KEPT) == 1


def test_a_server_that_is_not_there_yet_is_no_reason_not_to_start(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with running("worker", log=log, GRADTUNE_REDIS_URL=f"unix://{tmp_path}/later.sock") as worker:
        eventually(lambda: "cannot be used now" in log.read_text())
        eventually(lambda: bool(worker.part("worker.main")))


@pytest.mark.parametrize(
    ("info", "refused"),
    [
        ({"redis_version": "6.0.16"}, "The job store is Redis 6.0.16; use Redis 6.2 or newer, or Valkey."),
        ({"redis_version": "5.0"}, "The job store is Redis 5.0; use Redis 6.2 or newer, or Valkey."),
        ({"redis_version": "7.2.4", "cluster_enabled": 1}, "The job store is a Redis Cluster; use one server, .*"),
        ({"redis_version": "6.2.0"}, ""),
        ({"redis_version": "10.1.0"}, ""),
        ({"redis_version": "unstable"}, ""),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, ""),
        ({}, ""),
    ],
)
def test_servers_that_are_not_at_hand(info: dict[str, object], refused: str) -> None:
    findings = Findings([], [], [])
    judge(info, findings)
    assert re.fullmatch(refused, "".join(findings.refusals))
    assert findings.unusable == findings.refusals
    assert findings.warnings == []


@pytest.mark.parametrize("name", binaries())
def test_a_server_that_is_still_loading_keeps_a_log(tmp_path: Path, name: str) -> None:
    options = ("--appendonly", "yes", "--save", "", "--enable-debug-command", "local")
    with deployed(tmp_path, *options, binary=binaries()[name]) as server:
        server.client.execute_command("DEBUG", "POPULATE", 5000)
        server.client.bgrewriteaof()
        eventually(lambda: server.client.info()["aof_base_size"] > 0)
    slow = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
    with deployed(tmp_path, *options, *slow, binary=binaries()[name], loading=True) as server:
        found = asyncio.run(examine_at(server.url))
        assert server.client.info()["loading"] == 1
        reading = "The job store is still reading its file after a start: wait."
        assert found == Findings([], [reading], [reading])


def test_a_replica_is_no_address_for_jobs() -> None:
    findings = Findings([], [], [])
    judge({"role": "slave", "maxmemory": 100}, findings)
    assert findings.refusals == []
    replica, memory = findings.warnings
    assert findings.unusable == [replica]
    assert replica.startswith("The job store is a replica, which takes no writes: ")
    assert "(maxmemory-policy unknown). Set `maxmemory-policy noeviction`" in memory


@pytest.mark.slow
def test_the_documented_rights_are_enough(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
    rights = re.search(r"Users of an ACL need `([^`]+)`", text)
    assert rights is not None
    with deployed(tmp_path, "--appendonly", "yes") as server:
        access = ("~gradtune:*", "~rq:*", "&gradtune:changed")
        server.client.execute_command("ACL", "SETUSER", "limited", "on", ">secret", *access, *rights[1].split())
        url = f"redis://limited:secret@127.0.0.1:{server.port}"
        with (
            running("worker", log=tmp_path / "worker.log", GRADTUNE_REDIS_URL=url),
            serving(Settings(redis_url=url)) as api,
        ):
            eventually(lambda: api.get("/readyz").status_code == 200)
            assert api.get("/readyz").json()["warnings"] == []
            job_id = api.created(document())["id"]
            with store.connect(url, patience=10.0) as limited:
                limited.bgrewriteaof()  # after a full disk
            assert api.ended(job_id)["status"] == "succeeded"
            assert api.result(job_id)["job_id"] == job_id
            assert api.get("/v1/jobs").json()["data"][0]["id"] == job_id
            assert api.delete(f"/v1/jobs/{job_id}").status_code == 204
        assert "permission" not in (tmp_path / "worker.log").read_text().lower()
        assert server.client.execute_command("ACL", "LOG") == []
