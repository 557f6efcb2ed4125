"""Names, boxes and scales of the hyperparameters: users see natural units, optimizers see `rho`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt, Le
from jaxtyping import Bool, Float, Int

from worker.core.records import Array

MAX_START_DECADES = 3.0  # further starts are drawn at most this far from the initial value
SMALLEST_UNIT, LARGEST_UNIT = 1e-200, 1e200  # of a scale-free box


Spread = Annotated[float, Gt(0), Le(100)] | Literal["auto"] | None


@dataclass(frozen=True, slots=True)
class Family:
    """Like hyperparameters: the positions of its two or more `members`, ascending, and how far they may differ.

    `spread` is the scale of the hyper-prior on the logarithms, `auto` chooses it, None sets no prior. `name` is that of
    one hyperparameter in place of all.
    """

    name: str
    members: Int[Array, " m"]
    spread: Spread


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """`k` hyperparameters, tuned on the scale `rho` inside the box `[lower, upper]`.

    Positive ones have `rho = log(lam)` (natural logarithm) and are marked in `log`; for the others `rho = lam`.
    `initial`, `lower` and `upper` are on the scale of `rho`, `box` holds the bounds in natural units.
    """

    names: tuple[str, ...]
    initial: Float[Array, " k"]
    lower: Float[Array, " k"]
    upper: Float[Array, " k"]
    box: tuple[Float[Array, " k"], Float[Array, " k"]]
    log: Bool[Array, " k"]
    families: tuple[Family, ...] = ()

    @classmethod
    def positive(cls, names: tuple[str, ...], initial: float, lower: float, upper: float) -> Hyperparameters:
        """Hyperparameters that share one initial value and one box, given in natural units."""
        initials, lowers, uppers = (np.full(len(names), value) for value in (initial, lower, upper))
        log = np.ones(len(names), dtype=bool)
        return cls(names, np.log(initials), np.log(lowers), np.log(uppers), (lowers, uppers), log)

    @classmethod
    def real(cls, name: str, initial: float, lower: float, upper: float) -> Hyperparameters:
        """One hyperparameter of any sign, tuned without a transformation."""
        box = (np.array([lower]), np.array([upper]))
        return cls((name,), np.array([initial]), *box, box, np.zeros(1, dtype=bool))

    def __add__(self, other: Hyperparameters) -> Hyperparameters:
        parts = zip(self._arrays(), other._arrays(), strict=True)
        initial, lower, upper, low, high, log = (np.concatenate(pair) for pair in parts)
        later = (replace(one, members=one.members + len(self.names)) for one in other.families)
        families = (*self.families, *later)
        return Hyperparameters(self.names + other.names, initial, lower, upper, (low, high), log, families)

    def alike(self, name: str, spread: Spread, members: Int[Array, " m"] | None = None) -> Hyperparameters:
        """The same with a family of these members, all by default, unless that is a single one."""
        members = np.arange(len(self.names)) if members is None else members
        families = (*self.families, Family(name, members, spread)) if len(members) > 1 else self.families
        return replace(self, families=families)

    def prefixed(self, prefix: str) -> Hyperparameters:
        """The same with this before each name."""
        families = tuple(replace(one, name=f"{prefix}{one.name}") for one in self.families)
        return replace(self, names=tuple(f"{prefix}{name}" for name in self.names), families=families)

    def _arrays(self) -> tuple[Array, ...]:
        return self.initial, self.lower, self.upper, *self.box, self.log

    def natural(self, rho: Float[Array, " k"]) -> Float[Array, " k"]:
        """`lam`; at a bound exactly that bound, without the rounding of log and exp."""
        lam = np.where(self.log, np.exp(rho), rho)
        return np.where(rho == self.lower, self.box[0], np.where(rho == self.upper, self.box[1], lam))

    def unbounded(self) -> Hyperparameters:
        """The same without bounds: for names and values where units of the box are not known."""
        infinite = np.full(len(self.names), np.inf)
        return replace(self, lower=-infinite, upper=infinite)

    def at_bound(self, rho: Float[Array, " k"]) -> tuple[Literal["lower", "upper"] | None, ...]:
        """`"lower"`, `"upper"` or None for each hyperparameter."""
        return tuple(
            "lower" if low else "upper" if high else None
            for low, high in zip(rho <= self.lower, rho >= self.upper, strict=True)
        )

    def projected(self, rho: Float[Array, " k"], gradient: Float[Array, " k"]) -> Float[Array, " k"]:
        """The gradient without the components that push out of the box: zero exactly at a stationary point."""
        outward = ((rho <= self.lower) & (gradient > 0)) | ((rho >= self.upper) & (gradient < 0))
        return np.where(outward, 0.0, gradient)

    def start(self, number: int, seed: int) -> Float[Array, " k"]:
        """Starting point `number`: 0 is the initial value, others are uniform draws around it on the scale of `rho`."""
        if number == 0:
            return np.clip(self.initial, self.lower, self.upper)
        reach = MAX_START_DECADES * np.log(10.0)
        low, high = np.maximum(self.lower, self.initial - reach), np.minimum(self.upper, self.initial + reach)
        return np.random.default_rng([seed, number]).uniform(low, high)


Positive = Annotated[float, Gt(0)]


def check_box(
    lower: float, initial: float | None, upper: float, names: tuple[str, str, str] = ("lower", "initial", "upper")
) -> None:
    """Raises ValueError unless `lower < upper` and the initial value, if there is one, lies between them.

    `names` are the names of the settings that hold the three values.
    """
    low, first, high = names
    if not lower < upper:
        raise ValueError(f"{low} ({lower:g}) must be below {high} ({upper:g})")
    if initial is not None and not lower <= initial <= upper:
        raise ValueError(f"{first} ({initial:g}) must lie between {low} ({lower:g}) and {high} ({upper:g})")


@dataclass(frozen=True, slots=True)
class Box:
    """The box and the initial value of positive hyperparameters.

    Given numbers are natural units. Omitted ones (null) are scale-free: 1, 1e-6 and 1e6 in units of the variance of the
    columns. That is 1 where columns are standardized. An omitted bound gives way to given numbers, and an omitted
    initial value to both bounds.
    """

    initial: Positive | None = None
    lower: Positive | None = None
    upper: Positive | None = None

    defaults: ClassVar[tuple[float, float, float]] = (1.0, 1e-6, 1e6)  # of omitted ones, in their order, in their units

    def __post_init__(self) -> None:
        if self.lower is not None and self.upper is not None:
            check_box(self.lower, self.initial, self.upper)
        elif self.initial is not None:
            check_box(self.lower or 0.0, self.initial, self.upper or np.inf)

    @property
    def is_given(self) -> bool:
        """Whether no number is omitted, so that no unit is needed."""
        return None not in (self.initial, self.lower, self.upper)

    def hyperparameters(self, names: tuple[str, ...]) -> Hyperparameters:
        """Hyperparameters of these names in the box; units are 1."""
        box = Hyperparameters.positive(names, *self.defaults)
        return self.in_units(box, np.ones(len(names)))

    def in_units(self, box: Hyperparameters, units: Float[Array, " k"], start: float = 1.0) -> Hyperparameters:
        """The same hyperparameters with omitted numbers in these units; `start` multiplies the initial value."""
        first, low, high = self.defaults
        lower = np.full(len(units), self.lower) if self.lower is not None else low * units
        upper = np.full(len(units), self.upper) if self.upper is not None else high * units
        if self.lower is None:
            lower = np.where(lower < upper, lower, low / high * upper)
        if self.upper is None:
            upper = np.where(lower < upper, upper, high / low * lower)
        if self.initial is None:
            initial = np.clip(start * first * units, lower, upper)
        else:
            initial = np.full(len(units), self.initial)
            lower, upper = np.minimum(lower, initial), np.maximum(upper, initial)
        return replace(box, initial=np.log(initial), lower=np.log(lower), upper=np.log(upper), box=(lower, upper))


@dataclass(frozen=True, slots=True)
class LikeBox(Box):
    """The box of several like hyperparameters. `spread`: how far they may differ, by a hyper-prior on their logarithms.

    It is the scale of the prior: `auto` chooses it by what holds on new rows, null sets no prior.
    """

    spread: Spread = "auto"

    def like(self, names: tuple[str, ...]) -> Hyperparameters:
        """Like hyperparameters of these names in the box."""
        return self.hyperparameters(names).alike("penalty", self.spread)


def units_of(owner: Int[Array, " m"], k: int, variances: Float[Array, " m"]) -> Float[Array, " k"]:
    """The mean variance of the columns of each of k owners, over those that vary; 1 if none does.

    Owners are numbered from 0. The bounds keep a box of many decades finite.
    """
    varies = variances > 0
    sums = np.bincount(owner[varies], variances[varies], minlength=k)
    counts = np.bincount(owner[varies], minlength=k)
    return np.where(counts > 0, np.clip(sums / np.maximum(counts, 1), SMALLEST_UNIT, LARGEST_UNIT), 1.0)
