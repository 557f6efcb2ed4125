"""What kernel machines cost: a factor of the curved rows for each Newton step, or of the landmarks."""

from __future__ import annotations

from worker.core.costs import EXPONENTIAL, Sizes, TrainingCost, Work

STEPS = 4  # of Newton's method where the loss is not quadratic
PASSES = 10.0 + EXPONENTIAL  # of a kernel matrix: distances, the kernel, and its derivatives
CALLS, CALLS_OF_STEP = 40.0, 20.0  # of NumPy


def cost_of_kernels(features: int, landmarks: int | None, sizes: Sizes, *, iterative: bool) -> TrainingCost:
    """The cost of a machine of all rows, or of at most so many landmarks."""
    n, train, p, splits = float(sizes.rows), float(sizes.train), features, float(sizes.splits)
    steps = STEPS if iterative else 1
    points = n if landmarks is None else float(min(landmarks, sizes.train))
    side = train if landmarks is None else points
    kernels = Work(4.0 * n * side * p, PASSES * n * side, CALLS)  # among the rows, and to those that are scored
    if landmarks is None:
        step = Work(train**3 / 3, 6.0 * train**2, CALLS_OF_STEP)
        held = 5.0 * train**2 + 2.0 * n * p
    else:
        step = Work(train * side**2 + side**3 / 3, 4.0 * train * side, CALLS_OF_STEP)
        kernels += Work(train * side**2 + side**3)
        held = 6.0 * n * side + 4.0 * side**2 + 2.0 * n * p
    one = kernels + step * steps
    if sizes.closed_form:  # the inverse
        one += Work(2.0 * side**3 / 3, 8.0 * side**2)
    return TrainingCost(
        "kernel_matrix" if landmarks is None else "landmarks",
        Work(passes=splits * 3.0 * n * p, calls=splits * CALLS), one * splits, Work(), refit=one, held=held,
    )  # fmt: skip
