"""Delivery by RQ: what is put into its queue, and the worker that takes it out.

RQ carries ids from the service to a worker and knows nothing else: the store's record is the truth. So RQ's retries,
registries, timeouts and commands are not used; `reconcile` and `TuneWorker` are the one mechanism of redelivery.
"""

from worker.queue.delivery import JOB, delivery, reconcile
from worker.queue.horse import Horse, horse
from worker.queue.worker import Conclude, TuneWorker

__all__ = ["JOB", "Conclude", "Horse", "TuneWorker", "delivery", "horse", "reconcile"]
