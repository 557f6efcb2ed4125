"""The fits of all splits at a point: made directly, from an anchor of earlier fits, or one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from worker.core.hyperparameters import Hyperparameters
from worker.core.inner.kernel.kernel_fit import KernelSystem, MachineFit
from worker.core.inner.protocols import Fit, LinearSystem, SmoothFit, System
from worker.core.inner.smooth.fit import EXACT_TOLERANCE, GeneralizedLinear, GeneralizedLinearFit
from worker.core.objective.anchor import Anchor
from worker.core.records import Array

MOST_KEPT_TANGENTS = 30_000_000  # numbers in all dtheta/drho up to which they are kept (240 MB)
BEFORE_PREFIX = "before."  # prefix in `memory` of the arrays of the previous anchor

F = TypeVar("F", bound=SmoothFit)
Key = bytes  # of a point


@runtime_checkable
class Fits(Protocol):
    """The systems of all splits, and their fits."""

    @property
    def systems(self) -> Sequence[System[Fit]]:
        """One for each split."""

    def each(self, rho: Float[Array, " k"]) -> Iterator[Fit | None]:
        """A fit for each split, or None for one whose minimizer is not found."""


@runtime_checkable
class HeldFits(Protocol):
    """Fits that are all held at once, so that a Hessian at the same point needs no new factorization."""

    @property
    def systems(self) -> Sequence[LinearSystem[SmoothFit]]:
        """One for each split."""

    def each(self, rho: Float[Array, " k"]) -> Iterator[SmoothFit | None]:
        """A fit for each split, or None for one whose minimizer is not found."""

    def at(self, rho: Float[Array, " k"]) -> Sequence[SmoothFit] | None:
        """All fits, or None if the minimizer of one is not found."""

    def tangents(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> list[Float[Array, "_ f"]]:
        """`dtheta/drho` of the chosen hyperparameters for each split, where there are fits."""


@dataclass(slots=True)
class DirectFits(Generic[F]):
    """Fits of systems that are solved directly. Those of the last point are kept."""

    systems: Sequence[LinearSystem[F]]
    box: Hyperparameters
    own: int = 0  # hyperparameters at the end that are not training's
    _held: tuple[Key, list[F]] | None = field(default=None, init=False)
    _tangents: tuple[Key, list[Array]] | None = field(default=None, init=False)

    def each(self, rho: Float[Array, " k"]) -> Iterator[F | None]:
        """A fit for each split, or None."""
        fits = self.at(rho)
        yield from [None] if fits is None else fits

    def at(self, rho: Float[Array, " k"]) -> list[F] | None:
        """All fits, or None if one system is singular to working precision."""
        key = rho.tobytes()
        if self._held is not None and self._held[0] == key:
            return self._held[1]
        self._held = None  # free the factors before the next ones are made
        lam, fits = self.box.natural(rho)[: len(rho) - self.own], list[F]()
        for system in self.systems:
            fit = system.fit(lam)
            if fit is None:
                return None
            fits.append(fit)
        self._held = (key, fits)
        return fits

    def tangents(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> list[Float[Array, "_ f"]]:
        """`dtheta/drho` of the chosen hyperparameters for each split. The last ones are kept."""
        key = rho.tobytes() + chosen.tobytes()
        if self._tangents is None or self._tangents[0] != key:
            self._tangents = None
            D = [fit.sensitivity(chosen) for fit in self.at(rho) or ()]
            if sum(part.size for part in D) > MOST_KEPT_TANGENTS:
                return D
            self._tangents = key, D
        return self._tangents[1]


@dataclass(slots=True)
class AnchoredFits:
    """Fits of iterative training, each of which starts at a prediction from earlier ones.

    The anchor is the last point at which tangents were computed: Newton's method does so at each point it accepts.
    Without any, it is the last point at which there were fits.
    """

    systems: Sequence[GeneralizedLinear]
    box: Hyperparameters
    anchor: Anchor | None = field(default=None, init=False)
    _held: tuple[Key, list[GeneralizedLinearFit]] | None = field(default=None, init=False)

    def each(self, rho: Float[Array, " k"]) -> Iterator[GeneralizedLinearFit | None]:
        """A fit for each split, or None."""
        fits = self.at(rho)
        yield from [None] if fits is None else fits

    def at(self, rho: Float[Array, " k"]) -> list[GeneralizedLinearFit] | None:
        """All fits, or None if the minimizer of one is not found."""
        key = rho.tobytes()
        if self._held is not None and self._held[0] == key:
            return self._held[1]
        self._held = None  # free the factors before the next ones are made
        lam, fits = self.box.natural(rho), list[GeneralizedLinearFit]()
        for split in range(len(self.systems)):
            fit = self.fit(split, rho, lam)
            if fit is None:
                return None
            fits.append(fit)
        self._held = (key, fits)
        if self.anchor is None or self.anchor.D is None:
            self.anchor = Anchor(rho.copy(), tuple(fit.theta for fit in fits)).after(self.anchor)
        return fits

    def fit(
        self, split: int, rho: Float[Array, " k"], lam: Float[Array, " k"], accuracy: float = EXACT_TOLERANCE
    ) -> GeneralizedLinearFit | None:
        """The fit of one split from its prediction; from scratch if there is none or that start fails."""
        system = self.systems[split]
        fit = None if self.anchor is None else system.fit(lam, self.anchor.predicted(split, rho), accuracy)
        return system.fit(lam, None, accuracy) if fit is None else fit

    def release(self) -> None:
        """Free the fits of the last point."""
        self._held = None

    def reached(self, here: Anchor) -> None:
        """Start the next fits from here."""
        self.anchor = here.after(self.anchor)

    def tangents(self, rho: Float[Array, " k"], chosen: Int[Array, " f"]) -> list[Float[Array, "_ f"]]:
        """`dtheta/drho` of the chosen hyperparameters for each split. They become those of the anchor."""
        fits, anchor = self.at(rho) or [], self.anchor
        if anchor is not None and anchor.holds_tangents(rho, chosen):
            return list(anchor.D or ())
        D = [fit.sensitivity(chosen) for fit in fits]
        if sum(part.size for part in D) <= MOST_KEPT_TANGENTS and all(np.isfinite(part).all() for part in D):
            self.anchor = Anchor(rho.copy(), tuple(fit.theta for fit in fits), tuple(D), chosen)
        return D

    def forget(self) -> None:
        """Drop all warm starts, so that the next fits start from scratch."""
        self.anchor = self._held = None

    def memory(self) -> Mapping[str, Array]:
        """The anchor and the one before it, without D, which can be recomputed."""
        anchor = self.anchor
        if anchor is None:
            return {}
        if anchor.D is not None and self._held is not None:  # the search moved there and will ask for D
            anchor = Anchor(np.frombuffer(self._held[0]), tuple(fit.theta for fit in self._held[1]))
        before = anchor.before
        earlier = {} if before is None else {BEFORE_PREFIX + name: array for name, array in before.arrays().items()}
        return anchor.arrays() | earlier

    def recall(self, memory: Mapping[str, Array]) -> None:
        """Restore the anchors that `memory` saved."""
        self.forget()
        if memory:
            earlier = {
                name.removeprefix(BEFORE_PREFIX): array
                for name, array in memory.items()
                if name.startswith(BEFORE_PREFIX)
            }
            before = Anchor.of_arrays(earlier, len(self.systems)) if earlier else None
            self.anchor = replace(Anchor.of_arrays(memory, len(self.systems)), before=before)


@dataclass(slots=True)
class SuccessiveFits:
    """Fits that are made one at a time, as they are large, each from the last theta of its split."""

    systems: Sequence[KernelSystem]
    box: Hyperparameters
    _starts: dict[int, Float[Array, " m1"]] = field(default_factory=dict, init=False)

    def each(self, rho: Float[Array, " k"]) -> Iterator[MachineFit | None]:
        """A fit for each split, from the last theta; from zero if there is none or that start fails."""
        lam = self.box.natural(rho)
        for split, system in enumerate(self.systems):
            start = self._starts.get(split)
            fit = None if start is None else system.fit(lam, start)
            if fit is None:
                fit = system.fit(lam)
            if fit is not None:
                self._starts[split] = fit.start
            yield fit

    def forget(self) -> None:
        """Start the next fits at zero."""
        self._starts.clear()

    def memory(self) -> Mapping[str, Array]:
        """The starts of the next fits: intercept and theta of each split."""
        return {f"theta{split}": start for split, start in self._starts.items()}

    def recall(self, memory: Mapping[str, Array]) -> None:
        """Restore the starts that `memory` saved."""
        self._starts = {int(name.removeprefix("theta")): start for name, start in memory.items()}
