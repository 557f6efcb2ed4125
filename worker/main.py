"""Entry of a worker process: `python -m worker.main`, configured by the environment, one job at a time."""

from __future__ import annotations

import logging
import os

# Before numpy is loaded: one BLAS thread for each worker process, unless the environment says otherwise. Several
# workers on a machine would fight for the cores, and sums are then the same on any machine of one kind.
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, os.environ.get("GRADTUNE_BLAS_THREADS", "1"))

from worker import store  # noqa: E402
from worker.jobs import conclude_killed, retention, warm_up  # noqa: E402
from worker.queue import TuneWorker, memory  # noqa: E402


def main() -> None:
    """Work until SIGTERM or SIGINT; a running job is then handed over."""
    logging.basicConfig(
        level=os.environ.get("GRADTUNE_LOG_LEVEL", "INFO").upper(), format="%(asctime)s %(name)s %(message)s"
    )
    client = store.connect(os.environ["GRADTUNE_REDIS_URL"])
    worker = TuneWorker(
        connection=client, conclude=conclude_killed, warm_up=warm_up, memory=job_memory(), retention=retention()
    )
    worker.work(logging_level="WARNING")


def job_memory() -> int:
    """Bytes that a job may take, `GRADTUNE_JOB_MEMORY_MB`; by default a part of what all workers here may take."""
    megabytes = os.environ.get("GRADTUNE_JOB_MEMORY_MB")
    workers = int(os.environ.get("GRADTUNE_WORKERS") or 1)
    return int(float(megabytes) * 2**20) if megabytes else memory.share(workers)


if __name__ == "__main__":
    main()
