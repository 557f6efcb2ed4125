"""What one job may ask of the machine: running time, and estimates of cost and memory that are far above it."""

from __future__ import annotations

from service.problems import InvalidRequest, TooLarge
from service.settings import Settings
from worker.contract.columns import Selected
from worker.contract.data import MatricesData
from worker.contract.faults import Fault
from worker.contract.spec import JobSpec
from worker.core.costs import Cost

MARGIN = 4  # times the memory of a job that its estimate has to be to refuse it: estimates are rough
SIDE, AREA = 2_000, 1_000_000  # of a square matrix, and of the table, up to which no job comes near a limit
SHORT_SIDE, SHORT_AREA = 200, 5_000  # the same, up to which no job comes near the default limit of its own time


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


def refuse_costly(cost: Cost, settings: Settings) -> None:
    """Raise TooLarge for a job whose estimate is above the limits."""
    less = "use fewer rows or columns, landmarks for kernels, fewer splits or starts"
    if cost.seconds > settings.estimated_seconds:
        raise TooLarge(
            f"The job is estimated to take {cost.seconds:.3g} s of one core, and a job may take "
            f"{settings.estimated_seconds:.3g} s (GRADTUNE_MAX_ESTIMATED_SECONDS); {less}, or set limits.evaluations."
        )
    memory = settings.job_memory_mb
    if memory is not None and cost.bytes > MARGIN * memory * 2**20:
        raise TooLarge(
            f"The job is estimated to hold {cost.bytes / 2**20:.3g} MiB, and a job may take {memory:.3g} MiB "
            f"(GRADTUNE_JOB_MEMORY_MB); {less}."
        )


def is_large(spec: JobSpec, selected: Selected | None) -> bool:
    """Whether a job may come near a limit of the machine."""
    rows, columns = _shape(spec, selected)
    return max(rows, columns) > SIDE or rows * columns > AREA


def is_short(spec: JobSpec, selected: Selected | None) -> bool:
    """Whether a job ends long before its limits: it is small, and the limits are the default ones."""
    rows, columns = _shape(spec, selected)
    return not spec.limits.model_fields_set and max(rows, columns) <= SHORT_SIDE and rows * columns <= SHORT_AREA


def _shape(spec: JobSpec, selected: Selected | None) -> tuple[int, int]:
    """Rows and columns of the table, or of a matrix, which has no rows."""
    if selected is not None:
        return selected.rows, len(selected.features)
    if isinstance(spec.data, MatricesData):
        return 0, len(spec.data.vectors[0] or ())
    table = spec.inline().data.x
    return len(table), len(table[0])
