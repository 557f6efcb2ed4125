"""Which descents a search consists of: plain ones of J, or the path of a hyper-prior and the choice on it.

With like hyperparameters the search begins at their shared optimum and goes along a path of hyper-priors that let them
differ more and more, each descended from where the last one ended. Then it is chosen what holds on new rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from worker.core.hyperparameters import Family, Hyperparameters
from worker.core.objective.clustered import paired
from worker.core.objective.objective import Objective
from worker.core.objective.prior import FamilyPrior, HyperPrior, with_prior
from worker.core.objective.tied import Tie, tied
from worker.core.outer.scan import MOST_SCANNED
from worker.core.records import Array, Choice, Outcome, PathPoint, Start, Step
from worker.core.search.chosen_by_folds import chosen_by_folds
from worker.core.search.descent import Descent
from worker.core.search.left_out import MOST_JUDGED, LeftOut, RowsAt, left_out, unit_of_losses
from worker.core.search.left_out_splits import SplitObjectives, left_out_splits
from worker.core.search.plan import Prepared, Scans

SHARED = 0.0  # the spread of one value for each family
PATH = (0.5, 1.0)
WIDEST_OF_MANY = 0.5  # on the path where there are more hyperparameters than rows
WITHOUT_CHOICE = 0.5  # the spread where it cannot be judged: no worse than 1.7 % of the shared one in 27 tasks
LARGEST_UNIT = 10.0  # of losses that hardly bend, in units of twice J
CAUTION = 0.5  # standard errors of the gain that are not trusted
CAUTION_WITHOUT_HESSIAN = 3.0  # as with kernels: Gauss and Newton's hides how J bends, and small gains do not hold
BUDGET_OUTCOMES = {Outcome.TARGET_VALUE, Outcome.MAX_EVALUATIONS}


@dataclass(slots=True)
class Descents:
    """All descents of a search, in their order. Which is the next depends on the starts that have ended alone."""

    prepared: Prepared
    _kept: dict[tuple[float | None, bytes], Prepared] = field(default_factory=dict, init=False)
    _choices: dict[tuple[float | None, ...], Choice] = field(default_factory=dict, init=False)
    _rows: float = field(default=np.nan, init=False)
    _unit: float | None = field(default=None, init=False)
    _splits: SplitObjectives | Literal["unknown"] | None = field(default="unknown", init=False)

    @property
    def rows(self) -> float:
        """The number of selection rows."""
        if np.isnan(self._rows):
            self._rows = self.prepared.selection_rows
        return self._rows

    @property
    def box(self) -> Hyperparameters:
        """All hyperparameters."""
        return self.prepared.objective.hyperparameters

    @property
    def path(self) -> tuple[float, ...]:
        """The spreads of the priors that are descended; empty for plain tuning."""
        spreads = [family.spread for family in self.box.families]
        given = [spread for spread in spreads if isinstance(spread, float | int)]
        if "auto" not in spreads:
            return tuple(float(spread) for spread in given[:1])
        if not self._can_judge and not self._by_nested:
            return (WITHOUT_CHOICE,)
        many = len(self.box.names) > self.rows
        return tuple(s for s in PATH if not many or s <= WIDEST_OF_MANY)

    def next(self, done: tuple[Start, ...]) -> Descent | None:
        """The descent after those that have ended; None after the last."""
        starts, path = self.prepared.outer.starts, self.path
        if not path:
            if len(done) < starts:
                return Descent(self.prepared, len(done), None)
            return self.shared() if self.box.families and len(done) == starts else None
        if not done:
            return self.shared()
        spreads = self._of_path(done[0], path)
        if len(done) <= len(spreads):
            from_start = len(done) > 1 and spreads[len(done) - 1] == done[-1].spread
            rho = self.box.start(0, 0) if from_start else _best(done, done[-1].spread).best.rho
            return self._with_prior(done[0], spreads[len(done) - 1], rho)
        number = len(done) - len(spreads)
        chosen = self.choice(done[: len(spreads) + 1]).spread
        if number >= starts or not chosen or done[0].best.failure is not None:
            return None
        return self._further(done[0], chosen, number)

    def _of_path(self, shared: Start, path: tuple[float, ...]) -> tuple[float, ...]:
        """One descent for each spread, two for the first if the shared optimum is at a bound: J may be flat there."""
        if not np.isfinite(shared.best.value):
            return ()
        alike = np.concatenate([family.members for family in self.box.families])
        bounds = self.box.at_bound(shared.best.rho)
        return (path[0], *path) if all(bounds[j] is not None for j in alike) else path

    def shared(self) -> Descent:
        """The descent with one value for each family."""
        tie = Tie.of(self.box)
        # a grid of two would be too coarse to show where to begin: kernels are narrow valleys between plateaus
        scans: Scans = (
            None if (left := len(tie.hyperparameters.names)) > MOST_SCANNED else "grid" if left == 1 else "after"
        )
        prepared = self._prepared(SHARED, b"", tied(self.prepared.objective, tie), 1, scans)
        return Descent(prepared, 0, SHARED, tie=tie)

    def of(self, start: Start, done: tuple[Start, ...]) -> Descent:
        """The descent whose start this is, for what is asked of its objective at the end."""
        if start.spread is None:
            return Descent(self.prepared, 0, None)
        if start.spread == SHARED:
            return self.shared()
        return self._with_prior(done[0], start.spread, start.best.rho)

    def _with_prior(self, shared: Start, spread: float, rho: Float[Array, " k"]) -> Descent:
        prior = self.prior(shared, spread)
        objective = with_prior(self.prepared.objective, prior)
        from_here = replace(objective, hyperparameters=replace(self.box, initial=rho))
        return Descent(self._prepared(spread, rho.tobytes(), from_here, 1), 0, spread, prior)

    def _further(self, shared: Start, spread: float, number: int) -> Descent:
        """From a random start."""
        prior = self.prior(shared, spread)
        objective = with_prior(self.prepared.objective, prior)
        prepared = self._prepared(spread, b"", objective, self.prepared.outer.starts)
        return Descent(prepared, number, spread, prior)

    def _prepared(self, spread: float, key: bytes, objective: Objective, starts: int, scans: Scans = None) -> Prepared:
        """The same object for the same descent: searches ahead are told apart by it."""
        if (spread, key) not in self._kept:
            outer = replace(self.prepared.outer, starts=starts)
            self._kept[spread, key] = replace(self.prepared, objective=objective, outer=outer, scans=scans)
        return self._kept[spread, key]

    def unit(self, shared: Start) -> float:
        """The unit of J a row over the number of rows: the prior of a hyperparameter weighs as much as a row does.

        One nat for a likelihood, else the squared slopes of the losses over their bend at the shared optimum: twice J
        of squared errors. Twice J, too, where that is not known, and at least that.
        """
        objective = self.prepared.objective
        if objective.meaning.nats is not None:
            return 1.0
        if objective.loss.in_nats:
            return 1.0 / self.rows
        if self._unit is None:
            self._unit = 2.0 * objective.unit(shared.best.value)
            objective.forget()  # an interrupted search then has the same unit
            rows = RowsAt(self.prepared, shared.best.rho, np.empty(0, int))
            if objective.loss.by_row is not None and not objective.loss.by_moments and rows.known:
                bounds = self._unit, LARGEST_UNIT * self._unit
                self._unit = float(np.clip(unit_of_losses(rows) or self._unit, *bounds))
        return self._unit / self.rows

    def prior(self, shared: Start, spread: float) -> HyperPrior:
        """The hyper-prior of this spread for families with `auto`; others have their own, or none."""
        offset = Tie.of(self.box).offset

        def of(family: Family) -> FamilyPrior | None:
            own = spread if family.spread == "auto" else family.spread
            if not isinstance(own, float | int):
                return None
            first = family.members[0]
            return FamilyPrior(family.members, float(own), offset[family.members], float(shared.best.rho[first]))

        priors = tuple(prior for prior in map(of, self.box.families) if prior is not None)
        return HyperPrior(priors, self.unit(shared))

    @property
    def _by_nested(self) -> bool:
        return self.prepared.plan.spread_by == "nested"

    @property
    def _can_judge(self) -> bool:
        """Whether rows, or at least splits, can be judged as if each had not taken part."""
        return self._by_rows or self._by_splits is not None

    @property
    def _by_rows(self) -> bool:
        objective = self.prepared.objective
        known = objective.tangents is not None and objective.loss.by_row is not None
        return known and len(self.box.names) <= MOST_JUDGED

    @property
    def _by_splits(self) -> SplitObjectives | None:
        """The splits, where a score of all rows together leaves no other way."""
        if self._splits == "unknown":
            by_row = self.prepared.objective.loss.by_row is not None
            self._splits = None if by_row else SplitObjectives.of(self.prepared)
        return self._splits

    def choice(self, ended: tuple[Start, ...]) -> Choice:
        """Which spread holds best on new rows, of the starts of a path that have ended.

        The smallest `mean_i L_i + 1/2 se_i(L_i - L_i(0))`: L_i are the left-out losses, L_i(0) at the shared optimum.
        Without an exact Hessian, the least spread whose gain is more than three standard errors.
        """
        key = tuple(start.spread for start in ended)
        if key not in self._choices:
            self._choices[key] = self._choice(ended)
        return self._choices[key]

    def _choice(self, ended: tuple[Start, ...]) -> Choice:
        shared, spreads = ended[0], sorted({start.spread for start in ended if start.spread})
        starts = [shared, *(_best(ended, spread) for spread in spreads)]
        can_judge = self._can_judge and np.isfinite(shared.best.value)
        judged = [self.judged(shared, start) if can_judge else None for start in starts]
        points = tuple(
            PathPoint(start.spread or SHARED, start.best.selection, None if one is None else one.corrected)
            for start, one in zip(starts, judged, strict=True)
        )
        scores = [self._score(one, judged[0]) for one in judged]
        kinds = {family.spread for family in self.box.families}
        if "auto" not in kinds or not np.isfinite(scores).all():  # outer folds choose later, or a Hessian is not finite
            by: Literal["fixed", "given"] = "fixed" if "auto" in kinds else "given"
            return Choice(_unjudged([point.spread for point in points], self.box.families), by, points)
        # a shared value is no choice where a family is not to have one, unless nothing else has ended
        first = 1 if spreads and kinds != {"auto"} else 0
        lowest = first + int(np.argmin(scores[first:]))
        if not self.prepared.objective.has_hessian:  # the least spread that counts, as wider ones are judged worse
            lowest = next((i for i in range(1, len(scores)) if scores[i] < scores[0]), first)
        return Choice(points[lowest].spread, "jackknife", points)

    def _score(self, judged: LeftOut | None, shared: LeftOut | None) -> float:
        """What the choice minimizes; NaN if it is not known."""
        if judged is None or shared is None:
            return np.nan
        _, error = paired(judged.left_out, shared.left_out, judged.weights, judged.clusters)
        caution = CAUTION if self.prepared.objective.has_hessian else CAUTION_WITHOUT_HESSIAN
        return judged.corrected + caution * (error or 0.0)

    def choice_so_far(self, starts: tuple[Start, ...]) -> Choice | None:
        """The choice of the descents of a path that have ended by themselves; None if none has, or without a path.

        If others have not, it is told as no choice.
        """
        path = self.path
        if not path or starts[0].outcome in (None, *BUDGET_OUTCOMES):
            return None
        of_path = starts[: 1 + len(self._of_path(starts[0], path))]
        ended = tuple(start for start in of_path if start.outcome not in (None, *BUDGET_OUTCOMES))
        whole = len(ended) == 1 + len(self._of_path(starts[0], path))
        return self.choice(ended) if whole else replace(self.choice(ended), by=None)

    def ended_here(self, step: Step) -> Step:
        """A step at which the search was stopped, at the best point of those descents that have ended."""
        choice = self.choice_so_far(step.starts)
        step = replace(step, choice=choice)
        return replace(step, at=step.best.best, gradient_norm=step.best.gradient_norm)

    def with_folds(self, step: Step) -> Step:
        """The step with the spread that the outer folds choose, if they are to and can; folds tell of its spread.

        Until all of them have ended, it is the spread of the step. The same step gives the same again.
        """
        if not self._by_nested or step.choice is None:
            return step
        prepared, nested = self.prepared, self.prepared.plan.nested
        assert nested is not None  # `misfits` has looked
        splits = nested.splits(prepared.plan.selection, prepared.rows, prepared.problem)
        if step.folds and len(step.folds) == len(splits):
            shared_too = all(family.spread == "auto" for family in self.box.families)
            chosen = chosen_by_folds(step.choice, step.folds, shared_too=shared_too)
            step = replace(step, choice=chosen or step.choice)
        assert step.choice is not None
        spread = step.choice.spread
        step, best = replace(step, folds=tuple(fold.at(spread) for fold in step.folds)), step.best
        ended = step.ended if step.ended in (None, *BUDGET_OUTCOMES) else best.outcome
        return replace(step, at=best.best, gradient_norm=best.gradient_norm, ended=ended)

    def judged(self, shared: Start, start: Start) -> LeftOut | None:
        """The rows at the end of a descent as if each had not taken part in the choice of it; or the splits."""
        self.prepared.objective.forget()
        unit, spread, rho, splits = self.unit(shared), start.spread, start.best.rho, self._by_splits
        if spread == SHARED:
            descent = self.shared()
            assert descent.tie is not None
            sizes, t = np.bincount(descent.tie.to), descent.descended(start.best).rho
            if splits is not None:
                return left_out_splits(splits.tied(descent.tie), t, None, unit, sizes)
            return left_out(descent.prepared, t, None, unit, sizes)
        prior = self.prior(shared, spread).hessian(rho, holds=False) if spread else None
        sizes = np.ones(len(rho), int)
        if splits is not None:
            return left_out_splits(splits, rho, prior, unit, sizes)
        return left_out(self.prepared, rho, prior, unit, sizes)


def without_rows(step: Step, families: tuple[Family, ...]) -> Step:
    """A step at which a search was stopped, with a spread of descents that have ended where no row is at hand to judge.

    As it is without a path, or if none of it has ended.
    """
    ended = [start for start in step.starts if start.outcome not in (None, *BUDGET_OUTCOMES)]
    if step.starts[0].spread is None or not ended:
        return step
    spreads = sorted({start.spread for start in ended if start.spread is not None})
    points = tuple(PathPoint(spread, _best(tuple(ended), spread).best.selection, None) for spread in spreads)
    step = replace(step, choice=Choice(_unjudged(spreads, families), None, points))
    return replace(step, at=step.best.best, gradient_norm=step.best.gradient_norm)


def _unjudged(spreads: Sequence[float], families: tuple[Family, ...]) -> float:
    """The spread that is taken where rows cannot be judged, of those on a path in ascending order."""
    if all(family.spread != "auto" for family in families):
        return spreads[-1]
    return max(spread for spread in spreads if spread <= WITHOUT_CHOICE)


def _best(starts: tuple[Start, ...], spread: float | None) -> Start:
    """The best of the starts with this spread."""
    return min((start for start in starts if start.spread == spread), key=lambda start: start.best.value)
