"""What is broken, how often, and how it is mended: the plan of a seed, and the hands that carry it out."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import psutil
from redis.exceptions import RedisError

from tests.chaos.mending import Mending
from tests.chaos.network import Network
from tests.chaos.processes import Fleet, Role, signalled, tree
from tests.chaos.quota import Quota
from tests.chaos.work import Work
from tests.clock import ScriptClock, ServerClock

SHORT: Final = (0.2, 3.0)  # seconds
LONG: Final = (9.0, 13.0)  # longer than a lease
FULL: Final = (1.0, 4.0)
STEP: Final = (-7200.0, 7200.0)
MARGIN: Final = 3.0  # seconds in which a server with a full disk, and for a while after, is not killed


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: what is done to which role, for how long (`None`: it is killed), how often (a weight).

    For the server's clock, `seconds` is by how much it steps.
    """

    name: str
    weight: float
    role: str
    seconds: tuple[float, float] | None = None
    whole: bool = False  # with everything below it


KINDS: Final = (
    Kind("kill work-horse", 26, "horse"),
    Kind("kill worker", 8, "worker"),
    Kind("kill supervisor", 2, "supervisor"),
    Kind("kill machine", 2, "supervisor", whole=True),
    Kind("kill API", 5, "api"),
    Kind("kill server", 2, "server"),
    Kind("freeze work-horse", 12, "horse", SHORT),
    Kind("freeze work-horse, long", 2, "horse", LONG),
    Kind("freeze worker", 8, "worker", SHORT),
    Kind("freeze worker, long", 2, "worker", LONG),
    Kind("freeze worker and horse", 5, "worker", SHORT, whole=True),
    Kind("freeze worker and horse, long", 2, "worker", LONG, whole=True),
    Kind("freeze supervisor", 2, "supervisor", SHORT),
    Kind("freeze machine, long", 0.5, "supervisor", LONG, whole=True),
    Kind("freeze API", 4, "api", SHORT),
    Kind("freeze API, long", 0.5, "api", LONG),
    Kind("freeze server", 2, "server", SHORT),
    Kind("freeze server, long", 0.3, "server", LONG),
    Kind("fill disk", 1, "disk", FULL),
    Kind("step the clock", 6, "clock", STEP),
    Kind("cut link", 8, "link", SHORT),
    Kind("cut link, long", 2, "link", LONG),
)


@dataclass(slots=True)
class Fault:
    """A fault that was injected; `jobs` are those whose work-horse it hit."""

    at: float
    kind: str
    target: str
    seconds: float
    jobs: dict[str, int]  # with the process of the work-horse


@dataclass(frozen=True, slots=True)
class Planned:
    """When, what, which of the candidates (a number in [0, 1)), for how long."""

    after: float  # seconds since the one before
    kind: Kind
    which: float
    seconds: float


def plan(seed: int, mean: float, kinds: list[Kind]) -> Iterator[Planned]:
    """Faults without end, on average one every `mean` seconds. The same seed gives the same plan."""
    chance = random.Random(f"{seed}/faults")
    weights = [kind.weight for kind in kinds]
    while True:
        kind = chance.choices(kinds, weights)[0]
        seconds = chance.uniform(*kind.seconds) if kind.seconds else 0.0
        yield Planned(chance.uniform(0.3, 1.7) * mean, kind, chance.random(), seconds)


@dataclass(slots=True)
class Injector:
    """Carries out planned faults, and undoes those that end by themselves when their time has come."""

    fleet: Fleet
    work: Work
    quota: Quota | None
    network: Network | None
    mending: Mending
    clock: ScriptClock | ServerClock
    journal: list[Fault] = field(default_factory=list)
    missed: int = 0  # planned faults without a target
    _mending: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    _server_spared_until: float = 0.0

    def kinds(self) -> list[Kind]:
        """The kinds that are possible here."""
        have = {"disk": self.quota is not None, "link": self.network is not None}
        return [kind for kind in KINDS if have.get(kind.role, True)]

    def inject(self, planned: Planned) -> bool:
        """Break something; false when there is nothing to break in this way now."""
        kind = planned.kind
        if kind.role == "disk":
            return self._fill(planned)
        if kind.role == "link":
            return self._cut(planned)
        if kind.role == "clock":
            return self._step(planned)
        targets = [role for role in self.fleet.roles() if role.kind == kind.role and self._allowed(kind, role)]
        if not targets:
            self.missed += 1
            return False
        target = targets[int(planned.which * len(targets))]
        victims = tree(target.process) if kind.whole else [target.process]
        hit = self._jobs(target, victims, killed=kind.seconds is None)
        number = signal.SIGKILL if kind.seconds is None else signal.SIGSTOP
        for victim in victims:
            signalled(victim, number)
        self._note(planned, target.service.name, hit)
        if kind.seconds is not None:
            self._later(planned.seconds, lambda: [signalled(victim, signal.SIGCONT) for victim in victims])
        return True

    def mend(self, *, all_of_it: bool = False) -> None:
        """Undo what is due, or everything."""
        now = time.monotonic()
        due = [undo for at, undo in self._mending if all_of_it or at <= now]
        self._mending = [(at, undo) for at, undo in self._mending if not (all_of_it or at <= now)]
        for undo in due:
            undo()

    def _later(self, seconds: float, undo: Callable[[], object]) -> None:
        self._mending.append((time.monotonic() + seconds, undo))

    def _allowed(self, kind: Kind, role: Role) -> bool:
        """A server whose disk is full holds acknowledged writes in its memory alone: not to be killed then."""
        spared = time.monotonic() <= self._server_spared_until or self.mending.busy
        if kind.seconds is not None or not spared:
            return True
        return role.kind != "server" and role.service.name != "serve"

    def _jobs(self, target: Role, victims: list[psutil.Process], *, killed: bool) -> dict[str, int]:
        """What the horses among the victims work at. A killed worker or supervisor takes its horses along."""
        return self._at_work(tree(target.process) if killed else victims)

    def _at_work(self, horses: list[psutil.Process]) -> dict[str, int]:
        self.work.update()
        return {job: horse.pid for horse in horses if (job := self.work.job_held_by(horse.pid)) is not None}

    def _fill(self, planned: Planned) -> bool:
        if self.quota is None or self.quota.full or self.mending.busy:
            self.missed += 1
            return False
        self.quota.fill()
        self._server_spared_until = time.monotonic() + planned.seconds + MARGIN
        self._note(planned, "data directory", {})
        self._later(planned.seconds, self._free)
        return True

    def _free(self) -> None:
        assert self.quota is not None
        self.quota.free()
        self.mending.after_full_disk()

    def _cut(self, planned: Planned) -> bool:
        assert self.network is not None
        links = self.network.whole
        if not links:
            self.missed += 1
            return False
        link = links[int(planned.which * len(links))]
        behind = [role.process for role in self.fleet.roles() if role.service.name == link and role.kind == "horse"]
        hit = self._at_work(behind)
        self.network.cut(link)
        self._note(planned, link, hit)
        self._later(planned.seconds, lambda: self.network is not None and self.network.heal(link))
        return True

    def _step(self, planned: Planned) -> bool:
        """By which every job that is worked at is hit: all leases are judged by this clock."""
        try:
            self.clock.step(planned.seconds)
        except RedisError:  # the server is away
            self.missed += 1
            return False
        horses = [role.process for role in self.fleet.roles() if role.kind == "horse"]
        self._note(planned, "server", self._at_work(horses))
        return True

    def _note(self, planned: Planned, target: str, jobs: dict[str, int]) -> None:
        self.journal.append(Fault(time.monotonic(), planned.kind.name, target, planned.seconds, jobs))
