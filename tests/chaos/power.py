"""`python -m tests.chaos.power`: damage the append-only file of a real run in many places, and start the server on it.

A run of `gradtune serve` with jobs of callers is recorded: what was acknowledged when, and how long the file was when.
Tail: the power fails at a moment drawn at random. What was written up to a second before it is on the disk, as
`appendfsync everysec` has it; from some byte after that on, the file is cut off, or zeros, or garbage. The server must
start by itself, with every job that was acknowledged more than a second before, at least as far as callers had seen it.
Middle: the file is damaged in between. The server must refuse with a sentence that names the place; `doctor --repair`
must mend it; then every job that was acknowledged before the damaged byte was written must be there. Damage that does
not touch the structure of the file (a byte inside a value) is not noticed by any server, and is counted here.
"""

import argparse
import bisect
import json
import logging
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from service import doctor
from service.client import Client, ClientError
from tests.chaos.processes import Fleet, Service
from tests.chaos.specs import draw, templates
from worker import store
from worker.append_only import FOLDER, scan
from worker.embedded import EmbeddedServer, ServerError, server_binary
from worker.mending import commands

DURABLE = 1.0  # seconds after which what was written is on the disk
RANK = {"queued": 0, "running": 1, "cancelling": 2}  # every other status is an end
INCREMENT = "appendonly.aof.1.incr.aof"
Damage = Callable[[bytes, int, random.Random], bytes]


@dataclass(slots=True)
class Recording:
    """What happened, by the monotonic clock."""

    data: Path
    sizes: list[tuple[float, int]] = field(default_factory=list)
    seen: list[tuple[float, str, str]] = field(default_factory=list)  # moment, job, status

    @property
    def increment(self) -> Path:
        return self.data / "redis" / FOLDER / INCREMENT

    def written_by(self, moment: float) -> int:
        """How long the file was at least once that moment was over."""
        at = bisect.bisect_left(self.sizes, (moment, 0))
        return self.sizes[min(at, len(self.sizes) - 1)][1]

    def known_at(self, moment: float) -> dict[str, str]:
        """The furthest status that callers had seen of each job until a moment."""
        known: dict[str, str] = {}
        for at, job, status in self.seen:
            if at <= moment and RANK.get(status, 9) >= RANK.get(known.get(job, "queued"), 9):
                known[job] = status
        return known


def record(data: Path, seconds: float, chance: random.Random) -> Recording:
    """Run the service and two callers for some seconds, and stop it."""
    recording = Recording(data)
    fleet, over = Fleet(data.parent), threading.Event()
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--data-dir", str(data)]
    fleet.start(Service("serve", command))
    try:
        url = _url(data.parent / "serve.log")
        threads = [
            threading.Thread(target=_measure, args=(recording, over)),
            *(threading.Thread(target=_call, args=(url, recording, over, random.Random(n))) for n in (1, 2)),
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        over.set()
        for thread in threads:
            thread.join()
    finally:
        over.set()
        fleet.stop()
    recording.seen.sort()
    return recording


def _url(log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if ready := re.search(r"ready at (\S+)", log.read_text()):
            return ready[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def _measure(recording: Recording, over: threading.Event) -> None:
    while not over.wait(0.005):
        size = recording.increment.stat().st_size
        recording.sizes.append((time.monotonic(), size))


def _call(url: str, recording: Recording, over: threading.Event, chance: random.Random) -> None:
    """Submit jobs and look at them, until it is over."""
    client, among = Client(url, timeout=10.0), templates()
    open_jobs: list[str] = []
    while not over.is_set():
        with suppress(ClientError):
            reply = client.post("/v1/jobs", draw(chance, among).body(str(chance.random())))
            open_jobs.append(reply.json["id"])
            recording.seen.append((time.monotonic(), reply.json["id"], reply.json["status"]))
            if chance.random() < 0.1:
                client.post(f"/v1/jobs/{open_jobs[-1]}/cancel")
            for job in open_jobs[-4:]:
                status = client.get(f"/v1/jobs/{job}").json["status"]
                recording.seen.append((time.monotonic(), job, status))
        over.wait(0.1 * chance.random())


def cut(text: bytes, at: int, chance: random.Random) -> bytes:
    return text[:at]


def zeros_to_the_end(text: bytes, at: int, chance: random.Random) -> bytes:
    return text[:at] + bytes(len(text) - at)


def cut_and_zeros(text: bytes, at: int, chance: random.Random) -> bytes:
    return text[:at] + bytes(chance.randint(1, 4096))


def cut_and_garbage(text: bytes, at: int, chance: random.Random) -> bytes:
    return text[:at] + chance.randbytes(chance.randint(1, 4096))


def zeros_to_the_page(text: bytes, at: int, chance: random.Random) -> bytes:
    return text[:at] + bytes(-at % 4096)


def last_length(text: bytes, at: int, chance: random.Random) -> bytes:
    """A digit of the last command's lengths changes; what was written after it never arrived."""
    start = text.rfind(b"\r\n*", 0, at) + 2
    whole = text[: at if start < 2 else start]
    before = whole.rfind(b"\r\n*", 0, len(whole) - 2) + 2
    return whole[:before] + _other_digit(whole[before:], 0, chance)


def zeros(text: bytes, at: int, chance: random.Random) -> bytes:
    count = chance.randint(1, 4096)
    return text[:at] + bytes(min(count, len(text) - at)) + text[at + count :]


def garbage(text: bytes, at: int, chance: random.Random) -> bytes:
    count = chance.randint(1, 4096)
    return text[:at] + chance.randbytes(min(count, len(text) - at)) + text[at + count :]


def missing(text: bytes, at: int, chance: random.Random) -> bytes:
    return text[:at] + text[at + chance.randint(1, 4096) :]


def digit(text: bytes, at: int, chance: random.Random) -> bytes:
    """A digit of the first length or count after a place."""
    return text[:at] + _other_digit(text[at:], 0, chance)


def bit(text: bytes, at: int, chance: random.Random) -> bytes:
    return text[:at] + bytes([text[at] ^ (1 << chance.randrange(8))]) + text[at + 1 :]


def _other_digit(text: bytes, at: int, chance: random.Random) -> bytes:
    match = re.compile(rb"(?:^|\r\n)[*$](\d+)(?=\r\n)").search(text, at)
    if match is None:
        return text[:-1]
    place = chance.randrange(match.start(1), match.end(1))
    other = chance.choice([code for code in b"123456789" if code != text[place]])
    return text[:place] + bytes([other]) + text[place + 1 :]


TAIL: tuple[Damage, ...] = (cut, zeros_to_the_end, cut_and_zeros, cut_and_garbage, zeros_to_the_page, last_length)
MIDDLE: tuple[Damage, ...] = (zeros, garbage, missing, digit, bit)


@dataclass(slots=True)
class Outcome:
    """How many places of each kind came out how, and what broke a promise."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        for (kind, result), number in sorted(self.counts.items()):
            yield f"{kind:<18} {result:<22} {number}"
        yield from self.broken


def command_starts(text: bytes) -> list[int]:
    """Where the commands of an undamaged file begin."""
    starts, at = [], 0
    while at < len(text):
        starts.append(at)
        end = text.index(b"\r\n", at)
        words, at = int(text[at + 1 : end]), end + 2
        for _ in range(words):
            end = text.index(b"\r\n", at)
            at = end + 2 + int(text[at + 1 : end]) + 2
    return starts


class Campaign:
    """Places in copies of one recorded data directory."""

    def __init__(self, recording: Recording, directory: Path, seed: int) -> None:
        self._recording, self._directory = recording, directory
        self._chance = random.Random(seed)
        self._text = recording.increment.read_bytes()
        self._starts = command_starts(self._text)
        self.outcome = Outcome()

    def tail(self, damage: Damage) -> None:
        """The power fails at one moment; the server must start by itself."""
        sizes = self._recording.sizes
        moment = self._chance.uniform(sizes[0][0] + DURABLE, sizes[-1][0])
        durable, written = self._recording.written_by(moment - DURABLE), self._recording.written_by(moment)
        at = self._chance.randint(durable, written)
        if damage is last_length and (at := written) == durable:
            damage = cut
        damaged = damage(self._text[:written], at, self._chance)
        kind = f"tail {damage.__name__}"
        if damage is last_length:  # what it touches must not have been durable
            durable = next(
                (n for n, (a, b) in enumerate(zip(damaged, self._text, strict=False)) if a != b), len(damaged)
            )
            moment = self._moment_of(durable) + DURABLE
        data, increment = self._copy(damaged)
        try:
            jobs = self._started(data)
        except ServerError as error:
            self._break(f"{kind} at {at}: refused: {error}")
            return
        self._compare(kind, jobs, self._recording.known_at(moment - DURABLE))
        cuts = list(increment.parent.glob("*.cut-*"))
        self._check_parts(f"{kind} at {at}", increment, damaged)
        self.outcome.counts[kind, "mended and started" if cuts else "started"] += 1

    def _check_parts(self, where: str, increment: Path, damaged: bytes) -> None:
        """What is in use and what was kept are the damaged file; since then the server may have written."""
        kept = b"".join(each.read_bytes() for each in increment.parent.glob("*.cut-*"))
        if increment.read_bytes()[: len(damaged) - len(kept)] + kept != damaged:
            self._break(f"{where}: the parts are not the file")

    def middle(self, damage: Damage) -> bool:
        """Damage with commands after it, half of it where a command begins; whether it was refused."""
        start = self._recording.sizes[0][1]
        at = self._chance.randint(start, len(self._text) - 10_000)
        if self._chance.random() < 0.5:  # most bytes are inside long values; the others matter more
            among = self._starts[bisect.bisect_left(self._starts, start) : -100]
            at = self._chance.choice(among) + self._chance.randint(-20, 20)
        damaged = damage(self._text, at, self._chance)
        first = next((n for n, (a, b) in enumerate(zip(damaged, self._text, strict=False)) if a != b), None)
        kind = f"middle {damage.__name__}"
        if first is None:
            return False
        data, increment = self._copy(damaged)
        try:
            self._started(data)
        except ServerError as error:
            self._refused(damage, first, str(error), increment, damaged)
            return True
        if list(increment.parent.glob("*.cut-*")):
            self._break(f"{kind} at {at}: cut without being asked")
        self.outcome.counts[kind, "not noticed"] += 1
        return False

    def _refused(self, damage: Damage, first: int, sentence: str, increment: Path, damaged: bytes) -> None:
        kind, data = f"middle {damage.__name__}", increment.parents[2]
        named = re.search(
            r"(\S+) is damaged at byte (\d+): .* and (\d+) whole commands? stands? after it\..*--repair", sentence
        )
        after = bisect.bisect_right(self._starts, first)
        before, start = self._starts[after - 2 : after]
        # Where bytes are missing, a value may seem whole by chance, or the command before a word may seem damaged.
        near = damage is missing and named is not None and (int(named[2]) > start or int(named[2]) == before)
        if named is None or named[1] != str(increment) or (int(named[2]) != start and not near):
            self._break(f"{kind} at {first}: the sentence is {sentence}")
            return
        if increment.read_bytes() != damaged:
            self._break(f"{kind} at {first}: the file was touched")
        found = list(doctor.repair(data))
        if any(check.status == "wrong" for check in found):
            self._break(f"{kind} at {first}: {found}")
            return
        self._check_parts(f"{kind} at {first}", increment, damaged)
        expected = self._recording.known_at(self._moment_of(min(int(named[2]), first)))
        self._compare(kind, self._started(data), expected)
        self.outcome.counts[kind, "named near, repaired" if near else "refused and repaired"] += 1

    def _moment_of(self, offset: int) -> float:
        """Until when all that was written stands before a byte."""
        at = bisect.bisect_right([size for _, size in self._recording.sizes], offset)
        return self._recording.sizes[at - 1][0] if at else 0.0

    def _copy(self, damaged: bytes) -> tuple[Path, Path]:
        data = self._directory / "copy"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(self._recording.data / "redis", data / "redis", ignore=shutil.ignore_patterns("*.sock", "lock"))
        increment = data / "redis" / FOLDER / INCREMENT
        increment.write_bytes(damaged)
        return data, increment

    def _started(self, data: Path) -> dict[str, str]:
        jobs: dict[str, str] = {}
        with EmbeddedServer(data) as server, store.connect(server.url) as client:
            for job in {job for _, job, _ in self._recording.seen}:
                found = store.run(client, store.job(job))
                if found is not None:
                    jobs[job] = found.status.value
        return jobs

    def _compare(self, kind: str, jobs: dict[str, str], expected: dict[str, str]) -> None:
        for job, status in expected.items():
            if job not in jobs:
                self._break(f"{kind}: {job} is lost")
            elif RANK.get(jobs[job], 9) < RANK.get(status, 9):
                self._break(f"{kind}: {job} was {status} and is {jobs[job]}")
        self.outcome.counts["jobs", "checked"] += len(expected)

    def _break(self, sentence: str) -> None:
        self.outcome.broken.append(sentence)


def run(places: int, seconds: float, seed: int) -> Outcome:
    """Damage the tail in so many places, and the middle until so many are refused."""
    with tempfile.TemporaryDirectory(prefix="gradtune-power-") as name:
        directory = Path(name)
        (directory / "data").mkdir()
        recording = record(directory / "data", seconds, random.Random(seed))
        read = scan(recording.increment, 0, commands(server_binary()))
        assert read.damage is None
        campaign = Campaign(recording, directory, seed)
        campaign.outcome.counts["file", "bytes"] = read.size
        campaign.outcome.counts["file", "commands"] = read.commands
        for number in range(places):
            campaign.tail(TAIL[number % len(TAIL)])
        refused = number = 0
        while refused < places and number < 20 * places:
            refused += campaign.middle(MIDDLE[number % len(MIDDLE)])
            number += 1
        return campaign.outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.power", description=__doc__)
    parser.add_argument("--places", type=int, default=500, help="at the tail, and refused in the middle")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long the recorded run is")
    parser.add_argument("--seed", type=int, default=0, help="decides places and kinds")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    given = parser.parse_args()
    logging.getLogger("worker").setLevel(logging.ERROR)  # every mended file is said in a line
    outcome = run(given.places, given.seconds, given.seed)
    if given.json:
        counts = [[*names, number] for names, number in outcome.counts.items()]
        print(json.dumps({"counts": counts, "broken": outcome.broken}))
    else:
        print("\n".join(outcome.lines()))
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
