"""`python -m tests.corpus write DIR`, change the code, `python -m tests.corpus compare DIR`: did any number change?

Every training criterion with every selection criterion and every optimizer, and every other setting, on small data:
complete results, trajectories and refusals, to the last bit. It is for changes that only move and rename code. Both
commands have to run on one machine with the same libraries, since another BLAS rounds differently.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy is loaded
    os.environ[_name] = "1"

from tests.corpus.cases import cases  # noqa: E402
from tests.corpus.compare import UnfitDirectoryError, compare, write  # noqa: E402
from tests.corpus.run import end_of, records  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 1 where anything differs, 2 where there is nothing to do."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("command", choices=["write", "compare"])
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases with this in their name")
    parser.add_argument("--plain", action="store_true", help="with `spread: null` wherever it applies")
    parser.add_argument("--processes", type=int, default=2, help="cases at the same time (default: 2)")
    given = parser.parse_args(arguments)
    began, chosen = time.monotonic(), cases(given.only, plainly=given.plain)
    if not chosen:
        parser.error(f"no case has {given.only!r} in its name")
    made = records(chosen, given.processes)
    try:
        same = _written(given.directory, made) if given.command == "write" else _compared(given.directory, made, given)
    except UnfitDirectoryError as error:
        parser.error(str(error))
    print(f"{len(chosen)} cases in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0 if same else 1


def _written(directory: Path, made: Iterable[tuple[str, str]]) -> bool:
    ends = Counter(end_of(json.loads(text)) for text in write(directory, made))
    print(", ".join(f"{count} {end}" for end, count in sorted(ends.items())))
    return True


def _compared(directory: Path, made: Iterable[tuple[str, str]], given: argparse.Namespace) -> bool:
    found = compare(directory, made, given.only)
    print("\n".join(found.lines()))
    return found.same


if __name__ == "__main__":
    sys.exit(main())
