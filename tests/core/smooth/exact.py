"""Derivatives of plain formulas by mpmath, with digits enough for any cancellation."""

from __future__ import annotations

from collections import Counter

import mpmath as mp
import numpy as np


def quiet():
    """Nothing but underflow may go unnoticed; what overflows on purpose says so itself."""
    return np.errstate(all="raise", under="ignore")


def along(formula, y, eta, order, digits=400):
    """The derivative of `formula(y, .)` at each of the predictors."""
    with mp.workdps(digits):
        target = mp.mpf(y)
        return [float(mp.diff(lambda x: formula(target, x), mp.mpf(x), order)) for x in eta]


def partial(f, x, *axes, digits=50):
    """The partial derivative of `f(*x)` along each of the axes named, one or more times."""
    times = Counter(axes)
    with mp.workdps(digits):
        return float(mp.diff(f, tuple(mp.mpf(v) for v in x), tuple(times[a] for a in range(len(x)))))


def hessian(f, x, digits=50):
    """All second derivatives of `f(*x)`."""
    return np.array([[partial(f, x, a, b, digits=digits) for b in range(len(x))] for a in range(len(x))])
