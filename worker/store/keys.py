"""Every Redis key that the store reads or writes."""

from typing import Final

from rq.defaults import RQ_KEY_PREFIX

PREFIX: Final = "gradtune:"
JOB: Final = f"{PREFIX}job:"
"""`JOB + id` is the hash of a job; `:data`, `:checkpoint`, `:steps` and `:result` follow it."""
JOBS: Final = f"{PREFIX}jobs"
"""Sorted set of every job by creation time (microseconds)."""
ACTIVE: Final = f"{PREFIX}active"
"""Sorted set of the live jobs by the time (epoch seconds) at which somebody has to look after them."""
DATASET: Final = f"{PREFIX}dataset:"
"""`DATASET + id` is the hash of a dataset; `:jobs` follows it, the set of the live jobs that use it."""
DATASETS: Final = f"{PREFIX}datasets"
"""Sorted set of every dataset by creation time (microseconds)."""
DATASETS_USED: Final = f"{PREFIX}datasets:used"
"""Sorted set of every dataset by the time (epoch seconds) of its last upload, or of the last job's start or end."""
DATASETS_BYTES: Final = f"{PREFIX}datasets:bytes"
"""Sum of the bytes that all datasets take in the storage."""
DATASETS_DOOMED: Final = f"{PREFIX}datasets:doomed"
"""Set of the datasets that are gone, but whose files may still be there."""
CHANGED: Final = f"{PREFIX}changed"
"""Channel on which the id of a job is published at each visible change."""

QUEUE: Final = "gradtune"
"""Name of the one RQ queue."""
QUEUE_LIST: Final = f"{RQ_KEY_PREFIX}:queue:{QUEUE}"
INTERMEDIATE_LIST: Final = f"{QUEUE_LIST}:intermediate"
"""Where RQ keeps ids between a pop and the start of the job."""
RQ_JOB: Final = f"{RQ_KEY_PREFIX}:job:"
RQ_WORKERS: Final = f"{RQ_KEY_PREFIX}:workers:{QUEUE}"
"""Set of the keys of the workers' hashes, each of which expires soon after its worker's last heartbeat."""
