"""A coarse scan of J over the box, for one or two hyperparameters: it finds where else J could be lower.

A descent ends in the nearest minimum. The scan evaluates J and its gradient on a coarse grid, and then between
neighbours where the known values and slopes leave room for a lower J. Along the line between two neighbours the cubic
through both values and slopes (Hermite) estimates J. Its error is taken from the part of the rise of J that the mean of
both slopes does not explain: it is zero if J is quadratic between them.

J is compared on the scale of its logarithm if it is positive: few rows give values over many decades.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import Delaunay, QhullError

from worker.core.hyperparameters import Hyperparameters
from worker.core.objective.objective import Objective
from worker.core.records import EQUAL_VALUES, Array, Evaluation

MOST_SCANNED = 2  # hyperparameters
# by the number of hyperparameters: spacing of the grid on the scale of log(lam), most intervals along each, most points
# of the grid and between its points, most descents from points that are no lower than what is known
SPACING = {1: np.log(10.0), 2: 3.0 * np.log(10.0)}
MOST_INTERVALS = {1: 24, 2: 4}  # also the number of intervals on a scale that is not logarithmic
MOST_POINTS = {1: 50, 2: 90}
MOST_DOUBTFUL = {1: 0, 2: 4}
TYPICAL_EVALUATIONS = {1: 13, 2: 80}  # by the number of hyperparameters, for estimates
WORTHWHILE = {1: 1e-7, 2: 1e-3}  # a possible decrease of J, relative to J, that is worth another point
NEAR = {1: 0.1, 2: 0.25}  # distance from a known point at which another tells little, in units of the grid's spacing
SHORTEST = 0.05  # the same of neighbours between which nothing is looked for
APART = {1: 0.0, 2: 0.05}  # the same that a new point keeps at least from all others, by the number of hyperparameters
# error of the cubic in units of the unexplained rise: of its value, and of its slope times the distance of neighbours
VALUE_ERROR, SLOPE_ERROR = 2.4, 12.0
CAUTION = {1: 2.5, 2: 1.0}  # factor of both, by the number of hyperparameters
CAUTION_IF_SMOOTH = 0.25  # the same for two if J has an exact Hessian: widths of kernels make J rougher
NEAREST_END = 0.15  # the share of the distance between neighbours that a new point keeps from both

NAMES = ("rho", "value", "gradient", "begun", "ends", "failed")  # of what a survey holds


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of J: the points of the scan, and those where descents began and ended.

    `ends` has a row for each descent that has ended: its lowest J, and the relative gradient there. `begun` are the
    points from which descents began, `failed` those at which J is not defined.
    """

    rho: Float[Array, "m k"]
    value: Float[Array, " m"]
    gradient: Float[Array, "m k"]
    begun: Float[Array, "d k"]
    ends: Float[Array, "e 2"]
    failed: Float[Array, "f k"]

    @classmethod
    def empty(cls, k: int) -> Survey:
        """Nothing is known yet of `k` hyperparameters."""
        none = np.empty((0, k))
        return cls(none, np.empty(0), none, none, np.empty((0, 2)), none)

    def arrays(self) -> dict[str, Array]:
        """All fields, for a checkpoint."""
        return dict(zip(NAMES, (self.rho, self.value, self.gradient, self.begun, self.ends, self.failed), strict=True))

    @classmethod
    def of_arrays(cls, s: Mapping[str, Array]) -> Survey:
        """The inverse of `arrays`."""
        return cls(*(s[name] for name in NAMES))

    def with_point(self, at: Evaluation) -> Survey:
        """With one more point, or with another evaluation of a known one."""
        if at.failure is not None:
            return replace(self, failed=np.vstack([self.failed, at.rho]))
        others = (self.rho != at.rho).any(axis=1)
        return replace(
            self,
            rho=np.vstack([self.rho[others], at.rho]),
            value=np.append(self.value[others], at.value),
            gradient=np.vstack([self.gradient[others], at.gradient]),
        )

    def with_begun(self, rho: Float[Array, " k"]) -> Survey:
        """With a descent that begins here."""
        return replace(self, begun=np.vstack([self.begun, rho]))

    def with_end(self, best: Evaluation, gradient_norm: float) -> Survey:
        """With the end of a descent."""
        return replace(self.with_point(best), ends=np.vstack([self.ends, [best.value, gradient_norm]]))

    @property
    def lowest(self) -> float:
        """The lowest J at which a descent ended; infinite if all failed."""
        return float(self.ends[:, 0].min(initial=np.inf))

    @property
    def best_end(self) -> int:
        """The number of the descent that ended lowest; of equal ones, where the gradient is smallest."""
        value, gradient_norm = self.ends.T
        equal = value <= self.lowest + EQUAL_VALUES * abs(self.lowest)
        return int(np.argmin(np.where(equal, gradient_norm, np.inf)))


@dataclass(frozen=True, slots=True)
class Scan:
    """The scan of one objective. What it asks for depends on the survey alone, so that a resumed run goes the same way.

    `grid` holds the first points, in their order; `unit` is the distance of neighbours along each hyperparameter, and
    `caution` multiplies the estimated errors of cubics.
    """

    objective: Objective
    grid: Float[Array, "g k"]
    unit: Float[Array, " k"]
    caution: float

    @classmethod
    def of(cls, objective: Objective) -> Scan:
        """The scan of the whole box."""
        axes = axes_of(objective.hyperparameters)
        unit = np.array([(axis[0] - axis[-1]) / (len(axis) - 1) for axis in axes])
        smooth = len(axes) > 1 and objective.has_hessian
        return cls(objective, in_turns(axes), unit, CAUTION_IF_SMOOTH if smooth else CAUTION[len(axes)])

    def learnt(self, survey: Survey, at: Evaluation) -> Survey:
        """The survey with a point of a descent, unless a known one is near."""
        return survey if self._is_known(survey, at.rho) else survey.with_point(at)

    def _distance(self, rho: Float[Array, "m k"], point: Float[Array, " k"]) -> float:
        """From a point to the nearest of others, in units of the grid's spacing; infinite without any."""
        return float(np.linalg.norm((rho - point) / self.unit, axis=1).min(initial=np.inf))

    def _is_known(self, survey: Survey, rho: Float[Array, " k"]) -> bool:
        """Whether J is known so near that nothing can be in between. What is at a bound says nothing of what is not."""
        box = self.objective.hyperparameters
        near = np.linalg.norm((survey.rho - rho) / self.unit, axis=1) < NEAR[len(self.unit)]
        return any(box.at_bound(other) == box.at_bound(rho) for other in survey.rho[near])

    def next_start(self, survey: Survey) -> Float[Array, " k"] | None:
        """A point with a lower J than that of any descent; None if there is none."""
        if not len(survey.value):
            return None
        value, _, lowest = self._scaled(survey)
        value[_among(survey.rho, survey.begun)] = np.inf
        best = int(np.argmin(value))
        return survey.rho[best] if value[best] < lowest - EQUAL_VALUES else None

    def on_grid(self, survey: Survey, points: int) -> tuple[Float[Array, " k"], int] | None:
        """The next point of the grid, after `points`, near which J is not known, and its number; None at its end."""
        for number, rho in enumerate(self.grid[points:], start=points + 1):
            if not self._is_known(survey, rho):
                return rho, number
        return None

    def between(self, survey: Survey) -> Float[Array, " k"] | None:
        """A point between known ones where J could be lower than where a descent ended; None if that is unlikely."""
        if len(survey.value) <= len(self.unit):
            return None
        a, b = self._neighbours(survey.rho)
        step = survey.rho[b] - survey.rho[a]
        value, gradient, lowest = self._scaled(survey)
        slopes = [np.einsum("ek,ek->e", gradient[ends], step) for ends in (a, b)]
        low, share = lowest_between((value[a], value[b]), (slopes[0], slopes[1]), self.caution)
        low[np.linalg.norm(step / self.unit, axis=1) < SHORTEST] = np.inf
        target = lowest - WORTHWHILE[len(self.unit)]
        for edge in np.argsort(low, kind="stable")[: np.count_nonzero(low < target)]:
            rho = survey.rho[a[edge]] + share[edge] * step[edge]
            apart = self._distance(survey.rho, rho) >= APART[len(self.unit)]
            if apart and self._distance(survey.failed, rho) >= SHORTEST:
                return np.asarray(rho)
        return None

    def doubtful_start(self, survey: Survey) -> Float[Array, " k"] | None:
        """A point below all its neighbours whose slope could lead to a lower J than known; None if there is none.

        In a plane no line between two points need meet a minimum.
        """
        k = len(self.unit)
        if len(survey.begun) > MOST_DOUBTFUL[k] or len(survey.value) <= k:
            return None
        a, b = self._neighbours(survey.rho)
        value, gradient, lowest = self._scaled(survey)
        higher = np.concatenate([a[value[a] > value[b]], b[value[b] > value[a]]])
        box = self.objective.hyperparameters
        inward = np.array([box.projected(*pair) for pair in zip(survey.rho, gradient, strict=True)])
        could_be = value - np.abs(inward * self.unit).sum(axis=1) / 2
        begun = [self._distance(survey.begun, rho) < NEAR[len(self.unit)] for rho in survey.rho]
        could_be[higher], could_be[begun] = np.inf, np.inf
        best = int(np.argmin(could_be))
        return survey.rho[best] if could_be[best] < lowest - WORTHWHILE[k] else None

    def _scaled(self, survey: Survey) -> tuple[Float[Array, " m"], Float[Array, "m k"], float]:
        """J, its gradient and the lowest J of a descent, on a scale where changes are relative to J."""
        value, gradient, lowest = survey.value, survey.gradient, survey.lowest
        unit = self.objective.unit(float(value.min()))
        if value.min() > 0 and unit == value.min():
            return np.log(value), gradient / value[:, None], float(np.log(lowest))
        return value / unit, gradient / unit, lowest / unit

    def _neighbours(self, rho: Float[Array, "m k"]) -> tuple[Int[Array, " e"], Int[Array, " e"]]:
        """Pairs of points without another one between them: on a line the next, in a plane edges of triangles."""
        if len(self.unit) == 1:
            order = np.argsort(rho[:, 0])
            return order[:-1], order[1:]
        try:
            triangles = Delaunay(rho / self.unit).simplices
        except QhullError:  # all points on one line
            order = np.lexsort(rho.T)
            return order[:-1], order[1:]
        edges = np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [0, 2]]])
        edges = np.unique(np.sort(edges, axis=1), axis=0)
        return edges[:, 0].astype(int), edges[:, 1].astype(int)


def _among(rho: Float[Array, "m k"], others: Float[Array, "d k"]) -> Bool[Array, " m"]:
    """Which points are among the others."""
    return (rho[:, None] == others).all(axis=2).any(axis=1)


def axes_of(box: Hyperparameters) -> list[Float[Array, " _"]]:
    """The coordinates of the coarse grid along each hyperparameter, from its upper to its lower bound, both exact."""
    k = len(box.names)
    axes = []
    for low, high, log in zip(box.lower, box.upper, box.log, strict=True):
        intervals = int(np.ceil((high - low) / SPACING[k] - 1e-9)) if log else MOST_INTERVALS[k]
        axis = np.linspace(high, low, min(max(intervals, 2), MOST_INTERVALS[k]) + 1)
        axis[[0, -1]] = high, low
        axes.append(axis)
    return axes


def points_of_grid(box: Hyperparameters) -> int:
    """How many points the coarse grid has: the scan evaluates J at most of them, and at some more."""
    return int(np.prod([len(axis) for axis in axes_of(box)]))


def scan_evaluations(k: int) -> int:
    """How many evaluations a scan of the box of `k` hyperparameters typically takes, and descents that follow it."""
    return TYPICAL_EVALUATIONS[k]


def in_turns(axes: list[Float[Array, " _"]]) -> Float[Array, "g k"]:
    """The points of the grid with these one or two axes, so that each is a neighbour of the one before.

    Fits that begin at earlier ones are cheap in this order. It begins with large penalties, the easy ones.
    """
    if len(axes) == 1:
        return axes[0][:, None]
    first, second = axes
    return np.array([(x, y) for i, x in enumerate(first) for y in (second if i % 2 == 0 else second[::-1])])


def lowest_between(
    values: tuple[Float[Array, " e"], Float[Array, " e"]],
    slopes: tuple[Float[Array, " e"], Float[Array, " e"]],
    caution: float = 1.0,
) -> tuple[Float[Array, " e"], Float[Array, " e"]]:
    """How low J could be between pairs of points, and at which share of the way from the first to the second.

    `values` and `slopes` are those at the first and at the second points, slopes times the distance. `caution` is a
    factor of the estimated error of the cubic. Infinite if there is no sign of a minimum between two points.
    """
    (fa, fb), (ga, gb) = values, slopes
    c2, c3 = 3 * (fb - fa) - 2 * ga - gb, 2 * (fa - fb) + ga + gb

    def cubic(t: Float[Array, " e"]) -> Float[Array, " e"]:
        return fa + t * (ga + t * (c2 + t * c3))

    error = caution * np.abs(fb - fa - (ga + gb) / 2)
    slope = 1.5 * (fb - fa) - (ga + gb) / 4  # of the cubic in the middle
    bends = np.abs(slope) < SLOPE_ERROR * error  # J may have a minimum and a maximum that the cubic has not
    low = np.where(bends, cubic(np.full(len(fa), 0.5)) - VALUE_ERROR * error, np.inf)
    with np.errstate(all="ignore"):
        root = np.sqrt(c2**2 - 3 * c3 * ga)
        t = np.where(c2 > 0, -ga / (c2 + root), (root - c2) / (3 * c3))  # the minimum of the cubic
        top = -(c2 + root) / (3 * c3)  # its maximum
        inside, bottom = (t > 0) & (t < 1), cubic(t)
        left = np.where((top > 0) & (top < t), cubic(top), fa)
        right = np.where((top < 1) & (top > t), cubic(top), fb)
        depth = np.minimum(left, right) - bottom
    low = np.where(inside, np.minimum(low, bottom - depth), low)
    return low, np.where(inside, np.clip(t, NEAREST_END, 1 - NEAREST_END), 0.5)
