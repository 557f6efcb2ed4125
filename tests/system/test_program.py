"""The program from the outside: starting, stopping, its commands, what it leaves behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.keys import digest
from tests.servers import server
from tests.service.api import Api, eventually
from tests.system.conftest import ENDLESS, LONG, SHORT
from tests.system.processes import PROGRAM, Service, environment, marked, numbers, running, service

pytestmark = pytest.mark.timeout(300)  # of work that is a matter of seconds on an idle machine


def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments], env=environment(**variables), capture_output=True, text=True, timeout=100, check=False
    )


def test_stopping_keeps_everything_and_the_next_start_goes_on(
    tmp_path: Path, undisturbed: tuple[dict[str, object], list[object]]
) -> None:
    with service(tmp_path) as first:
        ended = first.api.ended(first.api.created(SHORT)["id"])
        result = first.api.result(ended["id"])
        interrupted, queued = first.api.created(LONG)["id"], first.api.created(SHORT)["id"]
        eventually(lambda: len(first.api.steps(interrupted)) > 100)
        assert first.stop(signal.SIGTERM) == 0
    with service(tmp_path) as second:
        api = second.api
        assert api.get(f"/v1/jobs/{ended['id']}").json() == ended
        assert api.result(ended["id"]) == result
        assert api.ended(queued)["status"] == "succeeded"
        assert numbers(api.result(queued)) == numbers(result)
        job = api.ended(interrupted)
        assert (job["status"], job["attempt"]) == ("succeeded", 2)
        assert numbers(api.result(interrupted)) == numbers(undisturbed[0])
        assert api.steps(interrupted) == undisturbed[1]
        assert second.stop(signal.SIGINT) == 0


def test_a_stop_ends_long_polls_at_once(tmp_path: Path) -> None:
    with service(tmp_path, "--workers", "2") as started:
        eventually(lambda: started.api.get("/readyz").json()["workers"] == 2)
        job_id = started.api.created(ENDLESS)["id"]
        poll = http.client.HTTPConnection(started.url.removeprefix("http://"), timeout=60)
        with closing(poll):
            poll.request("GET", f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"})
            eventually(lambda: bool(started.api.steps(job_id)))
            assert started.stop(signal.SIGTERM) == 0
            reply = poll.getresponse()
            assert (reply.status, json.loads(reply.read())["status"]) == (200, "running")


def test_a_data_directory_and_a_port_have_one_service(shared: Service, tmp_path: Path) -> None:
    port = shared.url.rpartition(":")[2]
    taken = call("serve", "--port", port, "--data-dir", str(tmp_path))
    assert taken.returncode == 1
    assert (
        taken.stderr
        == f"Error: Cannot listen on 127.0.0.1:{port}: Address already in use. Choose another --port or --host.\n"
    )
    used = call("serve", "--port", "0", "--data-dir", str(shared.log.parent))
    assert used.returncode == 1
    assert re.search(r"^Error: The data directory .* is in use by the process \d+", used.stderr, re.MULTILINE)
    assert "Traceback" not in used.stderr
    assert shared.api.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--host", "0.0.0.0"], "needs API keys: run `gradtune keys create`"),
        (["serve", "--port", "70000"], "A setting is wrong. port:"),
        (["serve", "--workers", "0"], "A setting is wrong. workers:"),
        (["serve", "--log-level", "loud"], "A setting is wrong. log_level:"),
        (["serve", "--redis-url", "localhost"], "A setting is wrong. redis_url:"),
        (["api"], "Set GRADTUNE_REDIS_URL or --redis-url"),
        (["worker"], "Set GRADTUNE_REDIS_URL or --redis-url"),
        (["api", "--redis-url", "redis://localhost", "--host", "0.0.0.0"], "needs API keys"),
        (["jobs", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9 cannot be reached"),
        (["jobs", "--url", "nonsense"], "nonsense cannot be reached"),
        (["jobs", "--url", "http://127.0.0.1:port"], "cannot be reached"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("GRADTUNE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRADTUNE_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr


def test_api_and_workers_apart(tmp_path: Path) -> None:
    with server(tmp_path / "data") as embedded, socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
        probe.close()
        where = {"GRADTUNE_REDIS_URL": embedded.url}
        with (
            running("api", "--port", port, log=tmp_path / "api.log", **where) as front,
            running("worker", "--workers", "2", log=tmp_path / "worker.log", **where) as back,
            Api(f"http://127.0.0.1:{port}") as api,
        ):
            eventually(lambda: listens(int(port)))
            eventually(lambda: api.get("/readyz").status_code == 200)
            eventually(lambda: api.get("/readyz").json()["workers"] == 2)
            ids = [api.created(SHORT)["id"] for _ in range(4)]
            assert {api.ended(job_id)["status"] for job_id in ids} == {"succeeded"}
            assert back.stop() == 0
            assert api.get("/healthz").status_code == 200
            assert front.stop(signal.SIGINT) == 0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_demo_works_and_leaves_nothing(tmp_path: Path) -> None:
    with running("demo", log=tmp_path / "log", TMPDIR=str(tmp_path)) as demo:
        output, _ = demo.process.communicate(timeout=100)
        assert demo.process.returncode == 0
        assert marked(demo.mark) == []
    assert (tmp_path / "log").read_text() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert "-> 202 job_" in output
    for said in ("penalty[bmi]", "certificate: outer gradient norm", "stopped because", "gradtune serve &"):
        assert said in output


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    with running("demo", log=tmp_path / "log", TMPDIR=str(tmp_path)) as demo:
        assert "The service is at http://127.0.0.1:" in demo.line()
        os.killpg(demo.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        demo.process.wait(60)
        eventually(lambda: marked(demo.mark) == [], 10)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert "Traceback" not in (tmp_path / "log").read_text()


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_submitting_and_listing(shared: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a proxy is no way to this machine
    monkeypatch.setenv("GRADTUNE_URL", shared.url)
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({**SHORT, "labels": {"by": "command line"}}))
    result = json.loads(invoke("submit", str(spec), "--wait", "--json").stdout)
    assert (result["stop_reason"], result["partial"]) == ("at_bounds", False)  # the target is noise: nothing helps
    shown = invoke("submit", str(spec), "--wait").stdout
    assert "penalty[x0]" in shown
    assert f"{result['selection']['value']:.8g}" in shown
    job = json.loads(invoke("submit", str(spec), "--json").stdout)
    assert job["labels"] == {"by": "command line"}
    job_id = invoke("submit", str(spec)).stdout.strip()
    assert [item["id"] for item in json.loads(invoke("jobs", "--json", "--limit", "2").stdout)["data"]] == [
        job_id, job["id"],
    ]  # fmt: skip
    shared.api.ended(job_id)
    lines = invoke("jobs", "--status", "succeeded").stdout.splitlines()
    assert lines[0].startswith(f"{job_id}  succeeded")


def test_a_refused_spec_is_explained_at_the_terminal(shared: Service, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({**SHORT, "training": {"kind": "rigde"}}))
    result = CliRunner().invoke(main, ["submit", str(spec), "--url", shared.url])
    assert result.exit_code == 1
    assert "422 Invalid request" in result.stderr
    assert "/training/kind: There is no kind 'rigde' (did you mean 'ridge'?)" in result.stderr
    result = CliRunner().invoke(main, ["jobs", "--status", "no such&x=1", "--url", shared.url])
    assert result.exit_code == 1
    assert "/query/status" in result.stderr


def test_a_failed_job_is_explained_at_the_terminal(shared: Service, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    penalty = {"kind": "shared", "initial": 1e-300, "lower": 1e-300, "upper": 1e-290}
    data = {"x": [[float(i), float(i)] for i in range(6)], "y": [1.0, 2.0, 3.0, 1.0, 2.0, 4.0]}
    spec.write_text(json.dumps({"data": data, "training": {"kind": "ridge", "penalty": penalty}}))
    result = CliRunner().invoke(main, ["submit", str(spec), "--wait", "--url", shared.url])
    assert result.exit_code == 1
    assert "raise the lower bound or the initial value of the penalty" in result.stderr


def test_keys_made_at_the_terminal_open_a_closed_service() -> None:
    made = json.loads(invoke("keys", "create", "--json").stdout)
    assert digest(made["key"]) == made["hash"]
    shown = invoke("keys", "create").stdout
    key, hashed = re.findall(r"gt_\S+|[0-9a-f]{64}", shown)
    assert digest(key) == hashed


def test_the_demo_prints_a_spec_that_the_service_takes(shared: Service) -> None:
    spec = json.loads(invoke("demo", "--spec").stdout)
    reply = shared.api.post("/v1/jobs?validate_only=true", json=spec)
    assert reply.status_code == 200
    assert reply.json()["hyperparameters"] == 10


@pytest.mark.parametrize("command", ["", *main.commands, "keys create"])
def test_help_everywhere(command: str) -> None:
    for flag in ("--help", "-h"):
        shown = invoke(*command.split(), flag).stdout
        assert shown.startswith("Usage: ")
        assert len(shown.splitlines()[2].strip()) > 5


def test_every_setting_of_serve_names_its_environment_variable() -> None:
    shown = " ".join(invoke("serve", "--help").stdout.split())
    for name in ("HOST", "PORT", "WORKERS", "DATA_DIR", "REDIS_URL", "LOG_LEVEL", "MAX_QUEUED", "RETENTION_DAYS"):
        assert f"[GRADTUNE_{name}]" in shown
