"""Entry of a worker process: `python -m worker.main`, configured by the environment, one job at a time."""

from __future__ import annotations

import logging
import os

# Before numpy is loaded: one BLAS thread for each worker process, unless the environment says otherwise. Several
# workers on a machine would fight for the cores, and sums are then the same on any machine of one kind.
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, os.environ.get("GRADTUNE_BLAS_THREADS", "1"))

from worker import store  # noqa: E402
from worker.jobs import conclude_killed  # noqa: E402
from worker.queue import TuneWorker  # noqa: E402


def main() -> None:
    """Work until SIGTERM or SIGINT; a running job is then handed over."""
    logging.basicConfig(
        level=os.environ.get("GRADTUNE_LOG_LEVEL", "INFO").upper(), format="%(asctime)s %(name)s %(message)s"
    )
    client = store.connect(os.environ["GRADTUNE_REDIS_URL"])
    TuneWorker(connection=client, conclude=conclude_killed).work(logging_level="WARNING")


if __name__ == "__main__":
    main()
