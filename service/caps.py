"""What one job may ask of the machine: running time, and estimates of cost and memory that are far above it."""

from __future__ import annotations

from service.estimate import expected_cost
from service.problems import InvalidRequest, TooLarge
from service.settings import Settings
from worker.contract.columns import Selected
from worker.contract.data import MatricesData
from worker.contract.faults import Fault
from worker.contract.spec import JobSpec
from worker.core.training.kernel_machines import KernelTraining

MARGIN = 4  # times the memory of a job that its estimate has to be to refuse it: estimates are rough
SIDE, AREA = 2_000, 1_000_000  # of a square matrix, and of the table, up to which no job comes near a limit


def in_time(spec: JobSpec, settings: Settings) -> JobSpec:
    """The spec, whose default limit of time fits the settings. Raises InvalidRequest for one that does not."""
    limits, most = spec.limits, settings.max_seconds
    if limits.seconds <= most:
        return spec
    if "seconds" in limits.model_fields_set:
        detail = f"A job may run for {most:g} s (GRADTUNE_MAX_SECONDS), and this one asks for {limits.seconds:g} s."
        fault = Fault("/limits/seconds", "above_maximum", detail)
        raise InvalidRequest("The job asks for more time than it may have.", errors=[fault])
    return spec.model_copy(update={"limits": limits.model_copy(update={"seconds": most})})


def refuse_costly(spec: JobSpec, selected: Selected | None, settings: Settings) -> None:
    """Raise TooLarge for a job whose estimate is above the limits. Only one of some size is estimated."""
    if not _large(spec, selected):
        return
    cost = expected_cost(spec, selected)
    less = "use fewer rows or columns, landmarks for kernels, fewer splits or starts"
    if cost["seconds"] > settings.estimated_seconds:
        raise TooLarge(
            f"The job is estimated to take {cost['seconds']:.3g} s of one core, and a job may take "
            f"{settings.estimated_seconds:.3g} s (GRADTUNE_MAX_ESTIMATED_SECONDS); {less}, or set limits.evaluations."
        )
    memory = settings.job_memory_mb
    if memory is not None and cost["bytes"] > MARGIN * memory * 2**20:
        raise TooLarge(
            f"The job is estimated to hold {cost['bytes'] / 2**20:.3g} MiB, and a job may take {memory:.3g} MiB "
            f"(GRADTUNE_JOB_MEMORY_MB); {less}."
        )


def _large(spec: JobSpec, selected: Selected | None) -> bool:
    """Whether the estimate is worth its time."""
    if selected is not None:
        rows, columns = selected.rows, len(selected.features)
    elif isinstance(spec.data, MatricesData):
        rows, columns = 0, len(spec.data.vectors[0] or ())
    else:
        table = spec.inline().data.x
        rows, columns = len(table), len(table[0])
    side = max(rows, columns) if isinstance(spec.training, KernelTraining) else columns  # of the largest matrix
    return side > SIDE or rows * columns > AREA
