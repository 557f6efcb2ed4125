"""What a computation costs, and what the cost of a job depends on: estimates that need no rows."""

from __future__ import annotations

from dataclasses import dataclass

# seconds on one core of 2020 or later, measured on problems of middle size (`python -m benchmarks estimates`)
FLOP = 1e-10  # in a product or a factorization of matrices
PASS = 1.5e-9  # a number that passes through memory once: of a product with a vector, of a sum over rows
CALL = 2e-5  # a step of the interpreter that calls NumPy or SciPy
EXPONENTIAL = 4  # passes that an exponential, and what surrounds it, takes as much time as


@dataclass(frozen=True, slots=True)
class Work:
    """`flops` of products and factorizations of matrices, `passes` of numbers through memory, `calls` of NumPy."""

    flops: float = 0.0
    passes: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.passes + other.passes, self.calls + other.calls)

    def __mul__(self, count: float) -> Work:
        return Work(count * self.flops, count * self.passes, count * self.calls)

    @property
    def operations(self) -> float:
        """All flops: a number that passes through memory is multiplied and added once."""
        return self.flops + 2.0 * self.passes

    @property
    def seconds(self) -> float:
        """Of one core."""
        return FLOP * self.flops + PASS * self.passes + CALL * self.calls


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the cost of training depends on, without the values of the rows.

    `rows`: in all; `train`: in the largest training part; `filled`: the fraction of the values of the table that are
    stored; `k`: hyperparameters; `trials`: evaluations of J that the search takes at least. Facts of the other parts of
    the plan: `closed_form` and `leaves_rows_out` of the selection criterion, `needs_primal_factor` of the hypergradient
    method.
    """

    rows: int
    train: int
    splits: int
    filled: float
    k: int
    trials: int
    closed_form: bool
    leaves_rows_out: bool
    needs_primal_factor: bool


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """The `solver` of training, and what it costs: over all splits, except for the refit.

    `preparation`: of the statistics, once; `evaluation`: of J and its gradient at a new point; `hessian`: of the exact
    Hessian of J there, after them; `refit`: of the model of all rows. `held`: numbers in memory at once; `tangents`: of
    them those that only a Hessian needs, in addition.
    """

    solver: str
    preparation: Work
    evaluation: Work
    hessian: Work
    refit: Work
    held: float
    tangents: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a whole job: evaluations of J, flops, bytes held at once, seconds of one core.

    `evaluations` are those of the search over all starts and of the searches of outer folds, as far as the budget of
    evaluations allows. `evaluations_needed` are those that one search takes without a budget.
    """

    evaluations: int
    evaluations_needed: int
    flops: float
    bytes: float
    seconds: float
