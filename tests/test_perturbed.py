"""Perturbed inputs are nearly the inputs, and every run with a seed has the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.perturbed import DRAWS, perturbed, use_perturbed_draws


def test_values_move_by_a_few_units_in_the_last_place_and_equal_ones_alike() -> None:
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-5, 5).repeat(100)
    moved = perturbed(values, 1)
    assert (np.abs(moved - values) <= 8 * np.spacing(np.abs(values))).all()
    assert np.count_nonzero(moved != values) > 800
    assert (moved == perturbed(values, 1)).all()
    assert (perturbed(moved, 1) == moved).all()
    assert (moved != perturbed(values, 2)).any()
    assert (perturbed(np.repeat(values, 2), 1) == np.repeat(moved, 2)).all()


def test_what_has_no_last_place_stays() -> None:
    values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan])
    assert np.array_equal(perturbed(values, 3), values, equal_nan=True)
    assert isinstance(perturbed(0.3, 3), float)


def test_generators_draw_perturbed_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = np.random.default_rng([2, 7])
    monkeypatch.setattr(np.random, "default_rng", np.random.default_rng)  # put back afterwards
    use_perturbed_draws(5)
    generator = np.random.default_rng([2, 7])
    assert np.array_equal(generator.permutation(9), plain.permutation(9))
    for name in DRAWS:
        arguments = (2.0,) if name in {"standard_t", "gamma"} else ()
        theirs = getattr(plain, name)(*arguments, size=20)
        assert np.array_equal(getattr(generator, name)(*arguments, size=20), perturbed(theirs, 5))
