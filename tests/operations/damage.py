"""`python -m tests.operations.damage`: damage stored datasets in many places, then use them. Is a number ever wrong?

A real `gradtune serve`. Each dataset has its own numbers; a job on it has told its result before. Then a part
of its manifest, or of one of its files, is cut off, overwritten or changed in one bit, half of the times while the
service is down. Then it is read, a job is sent, the file is uploaded again, and the job once more. Every reply must be
below 500; a result must be the one from before, to the last bit; whatever is refused must be repaired by the upload.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.datasets.files import npy
from tests.service.api import Api
from tests.system.processes import numbers as numbers_of
from tests.system.processes import service

BATCH = 20  # datasets that are damaged together, between two starts of the service
ROWS = 60
KINDS = {"csv": "text/csv", "npy": "application/x-npy", "libsvm": "text/x-libsvm"}


def content(kind: str, seed: int) -> bytes:
    """A table of its own: three features and a target that depends on them."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(ROWS, 3)).round(4)
    y = (x @ [1.0, -2.0, 0.5] + 0.1 * draw.normal(size=ROWS)).round(4)
    if kind == "npy":
        return npy(np.column_stack([y, x]))
    text = io.StringIO()
    if kind == "csv":
        np.savetxt(text, np.column_stack([y, x]), "%.4f", ",", header="y,a,b,c", comments="")
    else:
        for target, row in zip(y, x, strict=True):
            text.write(f"{target} " + " ".join(f"{j + 1}:{value}" for j, value in enumerate(row)) + "\n")
    return text.getvalue().encode()


def spec_of(kind: str, name: str) -> dict[str, Any]:
    target = {"csv": "y", "npy": "x0", "libsvm": "label"}[kind]
    selection = {"kind": "k_fold", "folds": 4}
    return {"data": {"dataset_id": name, "target": target}, "training": {"kind": "ridge"}, "selection": selection}


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def longer(data: bytes, draw: random.Random) -> bytes:
    return data + draw.randbytes(draw.randrange(1, 5000))


def zeros(data: bytes, draw: random.Random) -> bytes:
    """A range that was never written, to the end of a block or of the file."""
    start = draw.randrange(len(data))
    end = min(start + draw.choice((64, 512, 4096)), len(data))
    return data[:start] + bytes(end - start) + data[end:]


def bit(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def noise(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    end = min(start + draw.choice((8, 512)), len(data))
    return data[:start] + draw.randbytes(end - start) + data[end:]


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (cut, longer, zeros, bit, noise)


@dataclass
class Case:
    """A dataset, the numbers of its job, and what was done to it."""

    kind: str
    file: bytes
    name: str = ""
    expected: dict[str, Any] = field(default_factory=dict)
    done: str = ""
    changed: bool = True

    def damage(self, path: Path, draw: random.Random) -> None:
        """Change a file; one time in ten remove it, and one time in two leave its time as it was."""
        before, at = path.read_bytes(), path.stat()
        if draw.random() < 0.1:
            path.unlink()
            self.done = f"remove {path.name}"
            return
        change = draw.choice(DAMAGE)
        after = change(before, draw)
        path.write_bytes(after)
        if draw.random() < 0.5:
            os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
        self.done, self.changed = f"{change.__name__} {path.name}", after != before


class Wrong(Exception):  # noqa: N818
    """What must not be."""


def numbers(api: Api, kind: str, name: str) -> tuple[str, dict[str, Any]]:
    """How a job on a dataset ends, and what its result says; empty where it is refused."""
    reply = api.create(spec_of(kind, name))
    if reply.status_code == 409:
        return "refused", {}
    job = api.ended(reply.json()["id"])
    if job["status"] == "failed":
        if job["error"]["code"] != "dataset-damaged" or job["attempt"] != 1:
            raise Wrong(f"a job failed with {job['error']} in attempt {job['attempt']}")
        return "failed", {}
    result = api.result(job["id"])
    return job["status"], numbers_of(result)


def stored(api: Api, case: Case) -> int:
    reply = api.post("/v1/datasets", content=case.file, headers={"Content-Type": KINDS[case.kind]})
    case.name = reply.json().get("id", "")
    return reply.status_code


def judge(api: Api, case: Case) -> str:
    """Use a damaged dataset, repair it, use it again. Raises Wrong."""
    reads = [api.get(f"/v1/datasets/{case.name}{path}").status_code for path in ("", "/preview")]
    if not set(reads) <= {200, 409}:
        raise Wrong(f"reading gave {reads}")
    end, found = numbers(api, case.kind, case.name)
    if found and found != case.expected:
        raise Wrong("a job gave other numbers")
    if (status := stored(api, case)) not in {200, 201}:
        raise Wrong(f"uploading again gave {status}")
    if (again := numbers(api, case.kind, case.name)) != ("succeeded", case.expected):
        raise Wrong(f"after the repair a job is {again[0]}")
    return {"succeeded": "harmless", "refused": "refused at once", "failed": "refused by the worker"}[end]


def place(case: Case, root: Path, draw: random.Random, *, manifest: bool) -> Path:
    """The file to be damaged."""
    folder = root / case.name
    files = [folder / "manifest.json"] if manifest else [p for p in folder.iterdir() if p.name != "manifest.json"]
    return draw.choice(sorted(files))


def prepared(api: Api, manifests: list[bool], seed: int, draw: random.Random) -> list[Case]:
    """New datasets, each with the numbers of its job."""
    cases = []
    for i in range(len(manifests)):
        kind = draw.choice(list(KINDS))
        case = Case(kind, content(kind, seed + i))
        if stored(api, case) != 201:
            raise Wrong("a new file was not stored")
        end, case.expected = numbers(api, kind, case.name)
        if end != "succeeded":
            raise Wrong("a job on a sound dataset did not succeed")
        cases.append(case)
    return cases


def judged(api: Api, cases: list[Case]) -> collections.Counter[str]:
    """What became of each, by what was done to it."""
    outcomes = collections.Counter[str]()
    for case in cases:
        try:
            outcome = judge(api, case)
        except Wrong as error:
            outcome = f"WRONG: {error}"
            print(f"{case.kind} {case.name} {case.done}: {error}", file=sys.stderr, flush=True)
        outcomes[f"{case.done}: {outcome}{'' if case.changed else ', nothing was changed'}"] += 1
    return outcomes


def campaign(data: Path, manifests: int, files: int, seed: int) -> collections.Counter[str]:
    """Batch after batch, with a service for each; every other one is damaged between two of them."""
    draw, outcomes = random.Random(seed), collections.Counter[str]()
    wanted = [True] * manifests + [False] * files
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        down = start // BATCH % 2 == 1

        def damage(cases: list[Case], batch: list[bool] = batch) -> None:
            for case, manifest in zip(cases, batch, strict=True):
                case.damage(place(case, data / "datasets", draw, manifest=manifest), draw)

        with service(data) as running:
            cases = prepared(running.api, batch, 1000 * seed + start, draw)
            if not down:
                damage(cases)
                outcomes += judged(running.api, cases)
        if down:
            damage(cases)
            with service(data) as running:
                outcomes += judged(running.api, cases)
        print(f"{start + len(batch)} places", file=sys.stderr, flush=True)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.operations.damage", description=__doc__)
    parser.add_argument("--manifests", type=int, default=100, help="places in manifests")
    parser.add_argument("--files", type=int, default=100, help="places in other files")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()):  # the logs of the service
        outcomes = campaign(Path(scratch), given.manifests, given.files, given.seed)
    wrong = sum(count for what, count in outcomes.items() if "WRONG" in what)
    for what, count in sorted(outcomes.items()):
        print(f"{count:5}  {what}")
    print(f"{sum(outcomes.values())} places damaged, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
