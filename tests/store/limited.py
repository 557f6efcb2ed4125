"""Blocks of memory in a work-horse with a limit, in a process that has not yet had more than that and given it back.

`python -m tests.store.limited URL DIRECTORY LIMIT SIZE...`: writes for each SIZE (MiB) whether there was a block of it.
"""

import sys
from pathlib import Path

from worker import store
from worker.queue.horse import Stable, WorkHorse


def main(url: str, directory: Path, limit: int, sizes: list[int]) -> None:
    def function(size: str) -> None:
        try:
            got = f"{len(bytearray(int(size) * 2**20)) >> 20}"
        except MemoryError:
            got = "refused"
        with (directory / "blocks").open("a") as file:
            file.write(f"{got}\n")

    with store.connect(url) as client:
        horse = WorkHorse(Stable(function, client, 8.0, lambda: None, limit * 2**20, 200))
        try:
            for size in sizes:
                horse.hand(str(size), "o")
                assert horse.wait(30.0) == "done"
        finally:
            horse.end()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), [int(size) for size in sys.argv[4:]])
