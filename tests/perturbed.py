"""Random numbers a few units in the last place off numpy's: inputs of tests as another processor would round them.

Kernels of BLAS for other processors round differently, so that an iteration can take another path. Nearly the same
inputs have the same effect, on one machine. A result that changes by more than rounding is a bug.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DRAWS = ("exponential", "gamma", "laplace", "lognormal", "normal", "random", "standard_normal", "standard_t", "uniform")
LOW_BITS = np.uint64(3)  # of the mantissa: up to 7 units in the last place
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: the product's high bits depend on all bits


def perturbed(values: Any, seed: int) -> Any:
    """The values with other last bits, which follow from their own bits and the seed: equal ones stay equal."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    kept = array.view(np.uint64) >> LOW_BITS
    last = ((kept ^ np.uint64(seed)) * MULTIPLIER) >> (np.uint64(64) - LOW_BITS)
    moved = ((kept << LOW_BITS) | last).view(np.float64)
    found = np.where(np.isfinite(array) & (array != 0), moved, array).reshape(np.shape(values))
    return found if np.ndim(values) else float(found)


def use_perturbed_draws(seed: int) -> None:
    """From now on `numpy.random.default_rng` gives generators whose real numbers are perturbed."""

    def draw(name: str) -> Any:
        original = getattr(np.random.Generator, name)
        return lambda self, *args, **kwargs: perturbed(original(self, *args, **kwargs), seed)

    kind: Any = type("PerturbedGenerator", (np.random.Generator,), {name: draw(name) for name in DRAWS})
    unperturbed = np.random.default_rng

    def default_rng(given: Any = None) -> np.random.Generator:
        generator: np.random.Generator = kind(unperturbed(given).bit_generator)
        return generator

    np.random.default_rng = default_rng  # type: ignore[assignment]
