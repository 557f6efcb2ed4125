"""Pure noise: does a result say that its model is worth nothing? 20 draws of 100 x 80, a penalty for each column.

The target is independent of the columns, so that the true error of a model is known: the variance of the noise plus
the squares of its intercept and coefficients. A model that predicts the mean has an error of about one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from benchmarks.answers import SPREADS, Answer, Spread, answer, with_spread
from worker.core.penalties import PerFeature
from worker.core.rows.problem import Problem
from worker.core.selection import KFold
from worker.core.training import Ridge

DRAWS, ROWS, COLUMNS = 20, 100, 80
SHORT_DRAWS, SHORT_COLUMNS = 2, 20
NOTES = ("gain_below_optimism", "many_hyperparameters")  # one of them at least has to be there
CLOSE = 0.05  # of the mean true error, within which the mean corrected value has to be


@dataclass(frozen=True)
class Draw:
    """What one job said, what is true of its model, and the variance of the targets that it saw."""

    said: Answer
    true: float
    variance: float


def drawn(number: int, columns: int, spread: Spread) -> Draw:
    random = np.random.default_rng([18, number])
    X, y = random.normal(size=(ROWS, columns)), random.normal(size=ROWS)
    problem = Problem(X, y, tuple(f"x{j}" for j in range(columns)))
    said = answer(problem, Ridge(penalty=with_spread(PerFeature(), spread)), KFold(seed=number))
    constant, *coefficients = said.model.predict(np.vstack([np.zeros(columns), np.eye(columns)])).tolist()
    return Draw(said, 1.0 + constant**2 + float(np.sum((np.array(coefficients) - constant) ** 2)), float(np.var(y)))


def main(*, short: bool, options: argparse.Namespace) -> None:
    draws, columns = (SHORT_DRAWS, SHORT_COLUMNS) if short else (DRAWS, COLUMNS)
    draws = options.splits or draws
    print(f"{draws} draws of {ROWS} x {columns}: means, standard deviations over draws in brackets; a constant has 1")
    print("    spread  selection value  corrected value       true error  variance of y  corrected/true  notes")
    for spread in SPREADS:
        found = [drawn(number, columns, spread) for number in range(draws)]
        said = [draw.said for draw in found]
        print(
            f"{'null' if spread is None else spread:>10}"
            f"  {mean([one.value for one in said]):>15}  {mean([one.corrected for one in said]):>15}"
            f"  {mean([draw.true for draw in found]):>15}  {mean([draw.variance for draw in found]):>13}"
            f"  {ratio(found):14.3f}  {noted(said)}",
            flush=True,
        )


def noted(said: list[Answer]) -> str:
    """In how many draws each note is there, and in how many at least one."""
    each = ", ".join(f"{note} {sum(note in one.notes for one in said)}" for note in NOTES)
    return f"{each}, any {sum(not set(NOTES).isdisjoint(one.notes) for one in said)}"


def mean(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({np.std(values):.3f})"


def ratio(found: list[Draw]) -> float:
    """Of the means of corrected value and true error: within `CLOSE` of one in an honest result."""
    return float(np.mean([draw.said.corrected for draw in found]) / np.mean([draw.true for draw in found]))
