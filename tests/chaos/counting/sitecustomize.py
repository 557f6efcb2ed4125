"""Put on PYTHONPATH of the parts: a clock of the scripts that can be set, and a count of evaluations.

With `CHAOS_CLOCK`, the store's scripts read a clock that a test can set (tests/clock.py). With `CHAOS_COUNT` every
evaluation that a work-horse makes is noted, in a file that survives it.

What a killed work-horse had done since its last checkpoint is, rightly, nowhere in the API. To know how much of it was
done twice, the generator `worker.core.search.tune.tune` is wrapped: one line (time, process, job, evaluations) for each
step, appended with a single write. The program under test is otherwise as it is.
"""

import importlib.util
import os
import sys
import time
from importlib.abc import MetaPathFinder

TUNE = "worker.core.search.tune"
PRELUDE = "worker.store.prelude"
_file = -1


def note(evaluations):
    global _file  # noqa: PLW0603 - one file for each process
    from worker.queue.horse import horse  # noqa: PLC0415 - this module is loaded before everything else

    try:
        job = horse().job_id
    except RuntimeError:  # a worker that warms up
        return
    if _file < 0:
        _file = os.open(os.environ["CHAOS_COUNT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(_file, f"{time.monotonic():.6f} {os.getpid()} {job} {evaluations}\n".encode())


def counted(tune):
    def counting(*args, **kwargs):
        note(0)
        for step in tune(*args, **kwargs):
            if step.ended is None:
                note(step.evaluations)
            yield step

    return counting


def count(module):
    module.tune = counted(module.tune)


def make_settable(module):
    from tests.clock import settable  # noqa: PLC0415 - it imports the module that was just loaded

    module.PRELUDE = settable(module.PRELUDE)


class _Finder(MetaPathFinder):
    """Lets the usual finder load a module, and changes it afterwards."""

    def __init__(self, name, change):
        self.name, self.change = name, change

    def find_spec(self, name, path, target=None):  # noqa: ARG002 - the protocol's signature
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            self.change(module)

        spec.loader.exec_module = exec_module
        return spec


if "CHAOS_COUNT" in os.environ:
    sys.meta_path.insert(0, _Finder(TUNE, count))
if "CHAOS_CLOCK" in os.environ:
    sys.meta_path.insert(0, _Finder(PRELUDE, make_settable))
