"""One run: start everything, note what undisturbed jobs come to, break, mend, drain, judge what was seen."""

import itertools
import json
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import CalledProcessError

from tests.chaos import layouts, network, quota
from tests.chaos.callers import Crowd, collect, reread
from tests.chaos.calls import Api, Unreachable
from tests.chaos.faults import Injector, plan
from tests.chaos.invariants import check
from tests.chaos.ledger import Ledger
from tests.chaos.mending import Mending
from tests.chaos.outcomes import Reference, canonical, numbers
from tests.chaos.processes import Fleet
from tests.chaos.report import Report, summarize
from tests.chaos.specs import Template, templates
from tests.chaos.work import Work

TICK = 0.02
READY = 60.0  # seconds for everything to come up
UNDISTURBED = 120.0  # seconds for the undisturbed jobs
DRAIN = 120.0  # seconds for the jobs under way to end after the last fault

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    seed: int = 0
    seconds: float = 60.0
    faults: int = 60
    jobs: int = 100_000
    callers: int = 8
    server: str = "embedded"
    layout: str = "apart"
    network: bool = False
    quota: bool = True
    logs: Path | None = None


def run(options: Options, say: Say) -> Report:
    """Nothing that is made here outlives it. Raises: `RuntimeError` when it cannot begin."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix=f"gradtune-chaos-{os.getpid()}-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if options.logs is not None:
            stack.callback(_keep, directory, options.logs)
        (directory / "data").mkdir()
        limited = _quota(options, directory / "data", stack, say)
        linked = _network(options, stack, say)
        work = Work(directory / "count")
        hosts = linked.hosts if linked else None
        if options.layout == "serve":
            layout = layouts.serve(options.server, directory / "data", work.path)
        else:
            layout = layouts.apart(options.server, directory / "data", work.path, hosts)
        fleet = Fleet(directory)
        stack.callback(fleet.stop)
        for service in layout.services:
            fleet.start(service)
        mending = Mending(layout.server_url)
        injector = Injector(fleet, work, limited, linked, mending, layout.clock)
        say(f"the clock is stepped by {type(layout.clock).__name__}")
        return _Run(options, say, fleet, layout.api, injector, work).perform()


def _quota(options: Options, data: Path, stack: ExitStack, say: Say) -> quota.Quota | None:
    reason = quota.possible() if options.quota else "it was not asked for"
    if reason is None:
        limited = quota.Quota(data)
        try:
            limited.mount()
        except CalledProcessError as error:
            reason = error.stderr.decode(errors="replace").strip()
        else:
            stack.callback(limited.unmount)
            return limited
    say(f"the disk is not filled: {reason}")
    return None


def _network(options: Options, stack: ExitStack, say: Say) -> network.Network | None:
    if not options.network or options.layout == "serve":
        return None
    reason = network.possible()
    if reason is None:
        linked = network.Network()
        stack.callback(linked.remove)
        try:
            linked.build()
        except (CalledProcessError, OSError) as error:
            reason = str(getattr(error, "stderr", None) or error)
            linked.remove()
        else:
            return linked
    say(f"no links are cut: {reason}")
    return None


def _keep(directory: Path, logs: Path) -> None:
    logs.mkdir(parents=True, exist_ok=True)
    for path in [*directory.glob("*.log"), *directory.glob("count")]:
        shutil.copy(path, logs / path.name)


def _write(path: Path, ledger: Ledger, injector: Injector, began: float) -> None:
    """Faults and sightings on one clock, to find out what happened to a job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    faults = [asdict(fault) for fault in injector.journal]
    jobs = {
        record.job_id or record.label: {
            "template": record.template,
            "sightings": [
                (round(seen.received, 3), seen.observer, seen.status, seen.attempt, seen.evaluations)
                for seen in record.sightings
            ],
        }
        for record in ledger.records()
    }
    path.write_text(json.dumps({"began": began, "faults": faults, "jobs": jobs}, indent=1))


@dataclass(slots=True)
class _Run:
    options: Options
    say: Say
    fleet: Fleet
    api: Api
    injector: Injector
    work: Work

    def perform(self) -> Report:
        among, ledger = templates(), Ledger()
        self._come_up()
        references = self._undisturbed(among)
        self.work.update()
        before = (self.work.made, self.work.repeated)
        assert before[1] == 0, "undisturbed work was done twice"
        until = time.monotonic() + self.options.seconds + DRAIN
        crowd = Crowd(
            self.api, ledger, among, self.options.seed, self.options.jobs, self.options.callers, 1, until
        )  # fmt: skip
        began = time.monotonic()
        crowd.start()
        try:
            self._disturb(began, crowd)
            drained = self._drain(crowd, until)
            listed = self._listed(ledger, until)
            self._last_look(ledger, until)
        finally:
            crowd.leave()
        injector = self.injector
        injector.mending.wait()
        for sentence in injector.mending.troubles:
            ledger.complain(sentence)
        self.work.update()
        breaches = list(check(ledger.records(), listed, references))
        if self.options.logs is not None:
            _write(self.options.logs / "seen.json", ledger, self.injector, began)
        return summarize(self.options, ledger, breaches, self.injector, self.work, self.api, references, drained)

    def _come_up(self) -> None:
        deadline = time.monotonic() + READY
        waiting = set(range(len(self.api.addresses)))
        while waiting:
            for which in sorted(waiting):
                try:
                    if self.api.once(which, "GET", "/readyz").status == 200:
                        waiting.discard(which)
                except Unreachable:
                    pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"the service did not come up in {READY:g} s")
            time.sleep(0.1)

    def _undisturbed(self, among: list[Template]) -> dict[str, Reference]:
        """Each template once, before anything is broken."""
        ledger, until = Ledger(), time.monotonic() + UNDISTURBED
        references = {}
        for template in among:
            record = ledger.open(f"undisturbed-{template.name}", template.name)
            reply = self.api.once(0, "POST", "/v1/jobs", template.body(record.label))
            if reply.status not in {201, 202}:
                raise RuntimeError(f"an undisturbed job was refused: {reply.body[:500]!r}")
            record.job_id = reply.json["id"]
        for record in ledger.records():
            while record.ended is None:
                if time.monotonic() > until:
                    raise RuntimeError(f"the undisturbed job {record.template} does not end")
                ledger.see(record, "reference", self.api.read(0, f"/v1/jobs/{record.job_id}", until, wait=5))
            collect(self.api, ledger, record, 0, until)
            if record.result is None or record.steps is None or record.ended.attempt != 1:
                raise RuntimeError(f"the undisturbed job {record.template} came to no result in one attempt")
            steps = [canonical(step) for step in record.steps]
            references[record.template] = Reference(
                record.ended.status,
                record.ended.stop_reason,
                numbers(record.result),
                steps,
                record.ended.evaluations,
                record.result["timing"]["fit_s"],
            )
        return references

    def _disturb(self, began: float, crowd: Crowd) -> None:
        options, injector = self.options, self.injector
        faults = plan(options.seed, options.seconds / max(options.faults, 1), injector.kinds())
        following = next(faults)
        at, said = began + following.after, began
        while (now := time.monotonic()) < began + options.seconds and crowd.busy:
            self.fleet.look_after()
            injector.mend()
            if now >= at and len(injector.journal) < options.faults:
                done = injector.inject(following)
                following = next(faults)
                if done:  # otherwise there was nothing to break in that way: another fault, soon
                    at += following.after
            if now - said > 15:
                said = now
                ended = len(crowd.ledger.ended())
                self.say(f"{now - began:4.0f} s: {len(injector.journal)} faults, {ended} jobs ended")
            time.sleep(TICK)
        injector.mend(all_of_it=True)
        crowd.closing.set()

    def _drain(self, crowd: Crowd, until: float) -> float:
        """Nothing is broken any more: how long the jobs under way take to their end."""
        began = time.monotonic()
        while crowd.busy and time.monotonic() < until:
            self.fleet.look_after()
            time.sleep(TICK)
        return time.monotonic() - began

    def _listed(self, ledger: Ledger, until: float) -> dict[str, list[str]]:
        """All jobs that the API lists, by label. Those that no reply has acknowledged are followed, too."""
        listed: dict[str, list[str]] = defaultdict(list)
        cursor = ""
        for _ in itertools.repeat(None, 10_000):
            self.fleet.look_after()
            page = self.api.read(0, f"/v1/jobs?limit=50{cursor}", until).json
            for job in page["data"]:
                listed[job["labels"]["chaos"]].append(job["id"])
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        for record in ledger.records():
            if record.job_id is None and listed.get(record.label):
                record.job_id = listed[record.label][0]
                while record.ended is None and time.monotonic() < until:
                    self.fleet.look_after()
                    ledger.see(record, "adopted", self.api.read(1, f"/v1/jobs/{record.job_id}", until, wait=1))
                collect(self.api, ledger, record, 1, until)
        return listed

    def _last_look(self, ledger: Ledger, until: float) -> None:
        """Every ended job once more, from both APIs in turn."""
        for number, record in enumerate(ledger.ended()):
            self.fleet.look_after()
            reread(self.api, ledger, record, "last look", number, until + 60)
