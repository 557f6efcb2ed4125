"""Do intervals and standard errors hold what they promise? Jobs on many draws from six populations.

An interval of a log penalty covers if it holds the minimizer of the mean of J over many fresh draws; a corrected value
with 1.96 standard errors to both sides covers if it holds the loss of the returned model on many fresh rows. Null
intervals, as of hyperparameters at a bound, are counted apart. One whose true minimizer is at a bound is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.answers import Lines, Spread, answer, with_spread
from benchmarks.designs import DESIGNS, Design
from worker.contract.spec import ALGORITHM
from worker.core.hypergradient import HypergradientAuto
from worker.core.objective.objective import Found, Objective
from worker.core.objective.scored_model import scored_by
from worker.core.outer import Newton, OuterAuto
from worker.core.records import Outcome
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare

NORMAL = 1.96  # standard errors to each side of a corrected value
FIRST = 100  # draws that the search for the true minimizer begins with
TOLERANCE = 1e-6  # of the slope of the mean J, relative
DRAWS, SHORT_DRAWS = 200, 2
TRUTH_DRAWS, SHORT_TRUTH_DRAWS = 2_000, 5
FRESH_ROWS, SHORT_FRESH_ROWS = 100_000, 2_000
SPREADS_COMPARED: tuple[Spread, ...] = (None, "auto")
OF_JOB, OF_TRUTH, OF_FRESH = 1, 2, 3  # streams of random numbers


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command line takes for this benchmark alone."""
    group = parser.add_argument_group("coverage")
    group.add_argument(
        "--designs", type=lambda text: tuple(map(int, text.split(","))), metavar="1,2",
        help=f"numbers from 1 to {len(DESIGNS)}, by default all",
    )  # fmt: skip


@dataclass(frozen=True)
class MeanOfDraws:
    """The mean of J over draws, as a formula, with its Hessian."""

    objectives: Sequence[Objective]

    def value(self, rho: np.ndarray) -> float:
        """The mean of J."""
        return float(np.mean([one.value(rho) for one in self.objectives]))

    def found(self, rho: np.ndarray) -> Found | None:
        """With its gradient; None if training fails in a draw."""
        each = [one.evaluate(rho) for one in self.objectives]
        if any(one.failure for one in each):
            return None
        return Found(
            float(np.mean([one.value for one in each])), np.mean([one.gradient for one in each], axis=0), np.zeros(1)
        )

    def hessian(self, rho: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Of the chosen hyperparameters."""
        return np.asarray(np.mean([one.hessian(rho, chosen) for one in self.objectives], axis=0))

    def residuals(self, rho: np.ndarray) -> None:
        """Nobody asks for them."""


def minimizer(design: Design, number: int, draws: int) -> tuple[np.ndarray, float]:
    """Of the mean J over fresh draws, and how far its gradient is from zero. First over few draws, then over all.

    Raises ValueError if the search does not converge.
    """
    training = design.training(with_spread(design.penalty, None))
    plan = Plan(training, design.selection, HypergradientAuto(), OuterAuto())
    objectives = [
        prepare(design.problem(np.random.default_rng([OF_TRUTH, number, i])), plan).objective for i in range(draws)
    ]
    rho = objectives[0].hyperparameters.start(0, 0)
    for count in sorted({min(FIRST, draws), draws}):
        mean = MeanOfDraws(objectives[:count])
        objective = replace(objectives[0], formula=mean, second=mean.hessian, approximation=None, warm=None)
        newton = Newton(tolerance=TOLERANCE)
        *_, last = newton.search(objective, rho)
        rho = last.evaluation.rho
        if newton.settled(objective, last.evaluation) not in {Outcome.CONVERGED, Outcome.AT_BOUNDS}:
            raise ValueError(f"the mean J of {design.name} has a relative slope of {last.gradient_norm:.1e} left")
    return rho, last.gradient_norm


def job(design: Design, number: int, draw: int, spread: Spread, fresh: Problem) -> dict[str, Any]:
    """What the service says about a draw, and the loss of its model on fresh rows."""
    began = time.process_time()
    training = design.training(with_spread(design.penalty, spread))
    said = answer(design.problem(np.random.default_rng([OF_JOB, number, draw])), training, design.selection)
    seconds = time.process_time() - began
    rows = np.arange(len(fresh.y))
    true = scored_by(said.model, training.selection_loss(fresh, None, rows), fresh, rows).value
    return {
        "low": said.low, "high": said.high, "rho": said.rho, "value": said.value, "corrected": said.corrected,
        "standard_error": said.standard_error, "true": true,
        "spread": said.spread, "notes": said.notes, "seconds": seconds,
    }  # fmt: skip


def fingerprint(design: Design) -> str:
    """Of everything that a result depends on besides the code: lines of another design are not taken."""
    return hashlib.sha256(f"{ALGORITHM} {design!r}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Row:
    """A line of the table: shares of intervals and of corrected values that cover, with the numbers behind them."""

    covered: np.ndarray  # of each interval that is counted, whether it covers
    null: float  # the share of intervals that are null, of hyperparameters whose true minimizer is inside the box
    inside: int  # such hyperparameters, of `k`
    k: int
    honest: np.ndarray  # of each job, whether the corrected value covers
    plain: np.ndarray  # the same of the selection value
    ratio: float  # mean corrected value over mean true loss

    def __str__(self) -> str:
        return (
            f"{percent(self.covered)}  {100 * self.null:5.1f} %  {self.inside:2d} of {self.k:<2d}"
            f"  {percent(self.plain)}  {percent(self.honest)}  {self.ratio:6.3f}"
        )


def percent(covered: np.ndarray) -> str:
    """Of how many."""
    if not covered.size:
        return "    - of    0"
    return f"{100 * np.mean(covered):5.1f} of {covered.size:4d}"


def row(jobs: Sequence[dict[str, Any]], truth: np.ndarray, inside: np.ndarray) -> Row:
    """Counted over these jobs; `inside`: whether the true minimizer of a hyperparameter is inside the box."""
    low, high = (np.array([one[name] for one in jobs], float)[:, inside] for name in ("low", "high"))
    known = ~np.isnan(low)
    covered = ((low <= truth[inside]) & (truth[inside] <= high))[known]
    value, corrected, true, error = (
        np.array([one[name] for one in jobs]) for name in ("value", "corrected", "true", "standard_error")
    )
    return Row(
        covered, 1.0 - float(known.mean()) if known.size else 0.0, int(inside.sum()), len(inside),
        np.abs(corrected - true) <= NORMAL * error,
        np.abs(value - true) <= NORMAL * error,
        float(corrected.mean() / true.mean()),
    )  # fmt: skip


def main(*, short: bool, options: argparse.Namespace) -> None:
    draws = options.splits or (SHORT_DRAWS if short else DRAWS)
    lines = Lines(options.results)
    truth_draws, fresh_rows = (SHORT_TRUTH_DRAWS, SHORT_FRESH_ROWS) if short else (TRUTH_DRAWS, FRESH_ROWS)
    print(f"{draws} jobs each; minimizers of the mean J over {truth_draws} draws, losses on {fresh_rows} fresh rows")
    print(
        "                                   spread  intervals that     null  inside       value +-       corrected +-"
    )
    print("                                           cover, percent                        1.96 se, percent     /true")
    for number in options.designs or range(1, len(DESIGNS) + 1):
        design = DESIGNS[number - 1]
        truth, inside = true_minimizer(design, number, truth_draws, lines)
        fresh = design.problem_of(np.random.default_rng([OF_FRESH, number]), fresh_rows)
        for spread in SPREADS_COMPARED:
            jobs = []
            for draw in range(draws):
                key = ["job", fingerprint(design), spread, fresh_rows, draw]
                if lines.get(key) is None:
                    lines.add(key, job(design, number, draw, spread, fresh))
                jobs.append(lines.get(key) or {})
            print(f"{number} {design.name:32s} {'null' if spread is None else spread:>6}  {row(jobs, truth, inside)}",
                  flush=True)  # fmt: skip


def true_minimizer(design: Design, number: int, draws: int, lines: Lines) -> tuple[np.ndarray, np.ndarray]:
    """The minimizer of the mean J over fresh draws, and whether each of its entries is inside the box."""
    key = ["truth", fingerprint(design), draws]
    if lines.get(key) is None:
        rho, slope = minimizer(design, number, draws)
        lines.add(key, {"rho": rho, "slope": slope})
    rho = np.array((lines.get(key) or {})["rho"])
    box = design.training(design.penalty).hyperparameters(design.problem(np.random.default_rng(0)))
    return rho, np.array([bound is None for bound in box.at_bound(rho)])
