"""Damaged datasets as callers meet them: told, never used, repaired by the same upload; and ids that are none."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from click.testing import CliRunner

from service.cli import main
from service.client import Client
from service.scrubber import Scrubber
from service.settings import Settings
from service.threads import Threads
from service.uploads import upload as send
from tests.datasets.test_damage import empty, flip, folder, forget, garbage, older, truncate, zero
from tests.service.api import Api, eventually, faults, serving
from tests.service.tabular import upload
from worker import store
from worker.datasets import LocalStorage, durable
from worker.embedded import EmbeddedServer
from worker.load import LoadError, load
from worker.store import keys

SCRATCH = np.random.default_rng(0)
ROWS = SCRATCH.normal(size=(40, 3)).round(6)


def table(number: int) -> bytes:
    """A table like every other, and yet with an id of its own."""
    rows = "".join(f"{number + i},{a},{b},{a - b + 0.1 * c}\n" for i, (a, b, c) in enumerate(ROWS.tolist()))
    return f"n,a,b,y\n{rows}".encode()


def spec_of(name: str) -> dict[str, Any]:
    data = {"dataset_id": name, "target": "y", "features": ["a", "b"]}
    return {"data": data, "training": {"kind": "ridge"}, "selection": {"kind": "k_fold", "folds": 4}}


def home(api: Api) -> Path:
    assert api.app is not None
    storage = api.app.state.datasets.storage
    assert isinstance(storage, LocalStorage)
    return storage.root


def listed(api: Api, name: str) -> bool:
    (item,) = [item for item in api.get("/v1/datasets", params={"limit": 200}).json()["data"] if item["id"] == name]
    return bool(item["damaged"])


def refused(api: Api, name: str) -> None:
    """Everywhere, with the remedy; and the list says it."""
    for path in ("", "/preview"):
        reply = api.get(f"/v1/datasets/{name}{path}")
        assert (reply.status_code, reply.json()["code"]) == (409, "dataset-damaged"), reply.text
        assert "Upload the same file again" in reply.json()["detail"]
    for query in ("", "?validate_only=true"):
        reply = api.post(f"/v1/jobs{query}", json=spec_of(name))
        assert (reply.status_code, reply.json()["code"]) == (409, "dataset-damaged"), reply.text
        assert [fault["pointer"] for fault in reply.json()["errors"]] == ["/data/dataset_id"]
    assert listed(api, name)


def sound(api: Api, name: str) -> None:
    for path in ("", "/preview"):
        assert api.get(f"/v1/datasets/{name}{path}").status_code == 200
    assert api.post("/v1/jobs?validate_only=true", json=spec_of(name)).status_code == 200
    assert not listed(api, name)


def gone(path: Path) -> None:
    path.rename(path.with_name("away"))


PLACES: list[tuple[str, Callable[[Path], None]]] = [
    *(("manifest.json", damage) for damage in (truncate, zero, flip, garbage, empty, folder, gone)),
    *(("dense", damage) for damage in (truncate, empty, gone)),
    ("preview.json", truncate),
]


def test_damage_is_told_and_repaired(api: Api, tmp_path: Path) -> None:
    for number, (file, damage) in enumerate(PLACES[::2]):
        content = table(number)
        document = upload(api, content, "text/csv")
        name = document["id"]
        damage(home(api) / name / file)
        refused(api, name)
        if number % 2:  # the command line asks first, whether it has to send anything
            (tmp_path / "table.csv").write_bytes(content)
            again, sent = send(Client(str(api.base_url)), tmp_path / "table.csv", None, quiet=True)
            assert (again["id"], sent) == (name, False)
        else:
            reply = api.post("/v1/datasets", content=content, headers={"Content-Type": "text/csv"})
            assert (reply.status_code, reply.json()["id"]) == (200, name)
        sound(api, name)
        assert api.get(f"/v1/datasets/{name}").json() == document | {
            "created_at": api.get(f"/v1/datasets/{name}").json()["created_at"]
        }


def look(server: EmbeddedServer, storage: LocalStorage, name: str) -> None:
    async def looked() -> None:
        client = store.aconnect(server.url)
        threads = Threads("uploads", 1, 1)
        await Scrubber(2**40, client, storage, threads).look(name)
        threads.close()
        await client.aclose()

    asyncio.run(looked())


def test_the_scrubber_finds_and_marks_what_nobody_has_read(
    api: Api, idle_server: EmbeddedServer, client: redis.Redis
) -> None:
    storage = LocalStorage(home(api))
    names = [upload(api, table(100 + i), "text/csv")["id"] for i in range(3)]
    assert store.run(client, store.due_dataset(1000.0)) is None  # each was written just now
    for i, name in enumerate(names):
        client.hincrbyfloat(keys.DATASET + name, "checked", -10_000 + 1000 * i)
    client.hdel(keys.DATASET + names[2], "checked")  # of an older version
    order = [store.run(client, store.due_dataset(1000.0)) for _ in range(4)]
    assert order == [names[2], names[0], names[1], None]
    flip(home(api) / names[0] / "dense")
    sound(api, names[0])  # nothing that is read here shows it
    for name in names:
        look(idle_server, storage, name)
    refused(api, names[0])
    assert "hash" in api.get(f"/v1/datasets/{names[0]}").json()["detail"]
    sound(api, names[1])
    upload(api, table(100), "text/csv")
    sound(api, names[0])
    flip(home(api) / names[1] / "dense")
    look(idle_server, storage, names[1])
    refused(api, names[1])
    flip(home(api) / names[1] / "dense")  # mended by hand
    look(idle_server, storage, names[1])
    sound(api, names[1])
    storage.delete(names[2])
    look(idle_server, storage, names[2])
    refused(api, names[2])
    look(idle_server, storage, "ds_" + "0" * 64)
    assert store.run(client, store.dataset("ds_" + "0" * 64)) is None


@pytest.mark.parametrize("rate", [1000.0, 0.0])
def test_a_service_scrubs_by_itself(api: Api, idle_server: EmbeddedServer, client: redis.Redis, rate: float) -> None:
    names = [upload(api, table(150 + i), "text/csv")["id"] for i in range(2)]
    flip(home(api) / names[0] / "dense")
    client.hdel(keys.DATASET + names[0], "checked")
    settings = Settings(redis_url=idle_server.url, data_dir=home(api).parent, dataset_scrub_mb_per_second=rate)
    with serving(settings) as other:
        if rate:
            eventually(lambda: listed(other, names[0]))
            refused(other, names[0])
        assert not listed(other, names[1])
    assert bool(client.hexists(keys.DATASET + names[0], "checked")) == bool(rate)


def test_a_damaged_dataset_is_not_listed_again_when_the_list_was_lost(
    api: Api, idle_server: EmbeddedServer, client: redis.Redis
) -> None:
    names = {upload(api, table(160 + i), "text/csv")["id"] for i in range(4)}
    bad = dict(zip(sorted(names)[:3], (empty, folder, garbage), strict=True))
    for name, damage in bad.items():
        damage(home(api) / name / "manifest.json")
    client.flushall()
    with serving(Settings(redis_url=idle_server.url, data_dir=home(api).parent)) as other:
        (sound_one,) = names - bad.keys()
        eventually(lambda: other.get(f"/v1/datasets/{sound_one}").status_code == 200)
        assert not bad.keys() & {item["id"] for item in other.get("/v1/datasets?limit=200").json()["data"]}
        for i in range(4):
            upload(other, table(160 + i), "text/csv")
        for name in names:
            sound(other, name)


def test_an_upload_again_finds_a_changed_number(api: Api) -> None:
    name = upload(api, table(200), "text/csv")["id"]
    data = home(api) / name / "dense"
    stored = data.read_bytes()
    flip(data)
    upload(api, table(200), "text/csv")
    assert data.read_bytes() == stored


def test_the_index_learns_of_a_dataset_when_all_of_it_is_on_the_disk(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, add = durable.sync, store.add_dataset

    def syncing(path: Path) -> None:
        sync(path)
        events.append(path.name)

    def adding(*arguments: Any, **options: Any) -> Any:
        events.append("index")
        return add(*arguments, **options)

    monkeypatch.setattr(durable, "sync", syncing)
    monkeypatch.setattr(store, "add_dataset", adding)
    name = upload(api, table(300), "text/csv")["id"]
    assert events.count("index") == 1
    before = events[: events.index("index")]
    assert sorted(before[:4]) == ["dense", "manifest.json", "preview.json", "seal"]
    assert before[3] == "manifest.json"
    assert "datasets" in before[4:]
    assert {path.name for path in (home(api) / name).iterdir()} == set(before[:4])


def test_a_disk_that_fails_to_keep_a_file_is_no_201(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Path) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as broken:
        broken.setattr(durable, "sync", failing)
        reply = api.post("/v1/datasets", content=table(310), headers={"Content-Type": "text/csv"})
        assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
    assert api.get("/v1/datasets").json()["data"] == []
    assert api.post("/v1/datasets", content=table(310), headers={"Content-Type": "text/csv"}).status_code == 201


def changed_number(path: Path) -> None:
    values = np.fromfile(path, "<f8")
    values[3] += 1000.0  # the target of the first row
    values.tofile(path)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_changed_number_never_becomes_a_result(live: Api, live_server: EmbeddedServer, sealed: bool) -> None:
    content = table(400 + sealed)
    name = upload(live, content, "text/csv")["id"]
    expected = live.result(live.ended(live.created(spec_of(name))["id"])["id"])
    if not sealed:
        older(home(live) / name)
    changed_number(home(live) / name / "dense")
    job = live.ended(live.created(spec_of(name))["id"])
    assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", "dataset-damaged", 1)
    assert "Upload the same file again" in job["error"]["detail"]
    refused(live, name)
    upload(live, content, "text/csv")
    again = live.result(live.ended(live.created(spec_of(name))["id"])["id"])
    assert again["selection"] == expected["selection"]
    assert again["model"] == expected["model"]


def test_files_that_are_damaged_while_a_job_waits(
    api: Api, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker does, in this process: the job ends with the problem, whatever part it is."""

    monkeypatch.setenv("GRADTUNE_DATA_DIR", str(home(api).parent))
    forget(monkeypatch)
    for number, (file, damage) in enumerate([*PLACES[:-1], ("dense", flip), ("dense", garbage)]):
        name = upload(api, table(500 + number), "text/csv")["id"]
        job = api.created(spec_of(name))["id"]
        description = client.hget(keys.JOB + job, "spec")
        assert isinstance(description, bytes)
        damage(home(api) / name / file)
        with pytest.raises(LoadError, match="damaged") as caught:
            load(description, b"")
        assert (caught.value.code, caught.value.damaged) == ("dataset-damaged", name)
        api.post(f"/v1/jobs/{job}/cancel")


# ids


def test_an_id_is_checked_before_it_becomes_a_part_of_a_key(api: Api) -> None:
    """`:jobs` after the id of a dataset is another key of the store, and not of the type that is asked for."""
    name = upload(api, table(600), "text/csv")["id"]
    api.created(spec_of(name))
    for path in (f"{name}:jobs", f"{name}:jobs/preview", name.upper(), f"{name}%0A"):
        assert api.get(f"/v1/datasets/{path}").status_code == 404
    assert api.delete(f"/v1/datasets/{name}:jobs").status_code == 404
    for other in (f"{name}:jobs", f"../datasets/{name}", "", f"{name}\n"):
        reply = api.create(spec_of(other))
        assert [code for _, code in faults(reply)] == ["string_pattern_mismatch"], reply.text
        assert faults(reply)[0][0] == "/data/dataset_id"


@pytest.mark.parametrize("what", ["show", "delete"])
def test_the_command_line_takes_no_other_path_for_an_id(what: str) -> None:
    """`show ds_.../preview` was another route. Nothing is sent: nobody listens there."""
    name = "ds_" + "0" * 64
    for other in (
        "../jobs",
        f"{name}/preview",
        f"{name}:jobs",
        f"{name}?x=1",
        f"{name}#x",
        "..",
        "%2e%2e",
        f"{name}\n",
        "",
    ):
        done = CliRunner().invoke(main, ["datasets", what, other, "--url", "http://127.0.0.1:1"])
        assert (done.exit_code, "64 digits" in done.output) == (2, True)
    done = CliRunner().invoke(main, ["datasets", what, name, "--url", "http://127.0.0.1:1"])
    assert (done.exit_code, "cannot be reached" in done.output) == (1, True)
