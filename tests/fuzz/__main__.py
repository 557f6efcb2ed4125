"""`python -m tests.fuzz`: damaged requests at a real service, each reply judged, the dearest printed."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.fuzz.meter import Cost
from tests.fuzz.run import Outcome, fuzz, reach, shown

CPU, MEMORY = 0.5, 50 * 2**20  # what no request costs the API on an idle machine: seconds, bytes
MARGIN = 3  # times these before it counts as a fault: processors differ, and share caches with others
GROWTH = 1.1, 30 * 2**20  # memory may grow by this factor and these bytes over the last four fifths of the requests


def main() -> int:
    """Run and report; 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=2026)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the service is stopped, too
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as directory:
        for name in ("damaged", "dear"):
            (Path(directory) / name).mkdir()
        fuzz(Path(directory) / "damaged", options.seed, options.requests, outcome)
        reach(Path(directory) / "dear", outcome)
    report(outcome)
    wrong = outcome.wrong + too_dear(outcome)
    for fault in wrong[:20]:
        print(f"WRONG {fault}")
    return 1 if wrong else 0


def report(outcome: Outcome) -> None:
    """Print statuses, memory and the dearest requests."""
    print("replies:", ", ".join(f"{status}: {count}" for status, count in sorted(outcome.statuses.items())))
    early, late = outcome.memory
    print(
        f"memory of the API after a fifth of the requests and at the end: {early / 2**20:.1f}, {late / 2**20:.1f} MiB"
    )
    print("dearest damaged requests, least of three times:")
    for cost, message in sorted(outcome.dearest, key=lambda one: -one[0].cpu)[:5]:
        print(f"  {words(cost)}  {shown(message)[:150]}")
    print("dearest requests at the limits, least of three times:")
    for kind, status, cost in sorted(outcome.limits, key=lambda one: -one[2].cpu)[:12]:
        print(f"  {words(cost)}  {status}  {kind}")
    for kind, status, cost in sorted(outcome.limits, key=lambda one: -one[2].memory)[:6]:
        print(f"  {words(cost)}  {status}  {kind}")


def above(cost: Cost, margin: int = 1) -> bool:
    """Whether it is more than it should be."""
    return cost.cpu > margin * CPU or cost.memory > margin * MEMORY


def words(cost: Cost) -> str:
    """A cost to read, marked if it is above what is promised."""
    return f"{cost.cpu:7.3f} s {cost.memory / 2**20:7.1f} MiB{' !' if above(cost) else '  '}"


def too_dear(outcome: Outcome) -> list[str]:
    """What cost more than it may, or grew."""
    everything = [
        *((kind, cost) for kind, _, cost in outcome.limits),
        *((one.kind, cost) for cost, one in outcome.dearest),
    ]
    found = [f"{kind} costs {words(cost)}" for kind, cost in everything if above(cost, MARGIN)]
    early, late = outcome.memory
    if late > early * GROWTH[0] + GROWTH[1]:
        found.append(f"the memory of the API grew from {early} to {late} bytes")
    return found


if __name__ == "__main__":
    sys.exit(main())
