"""What a model document predicts, by plain formulas in loops: shares no code with the predictions of the service."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, float]
# of the scaled squared distance, the settings and the values of the kernel
OF_DISTANCE: dict[str, Callable[[float, Mapping[str, Any], Mapping[str, float]], float]] = {
    "rbf": lambda s, _, __: math.exp(-s / 2),
    "matern": lambda s, kernel, _: _matern(kernel["nu"], s),
    "rational_quadratic": lambda s, _, values: (1 + s / (2 * values["alpha"])) ** -values["alpha"],
}


def predictors(model: Mapping[str, Any], rows: Sequence[Row], offsets: Sequence[float]) -> tuple[np.ndarray, float]:
    """`eta` of each row (n x m): one column, or one for each class. With the size of the largest sum of absolute terms.

    Rounding is relative to that size: terms of a kernel machine may cancel.
    """
    if model["kind"] == "multinomial":
        sums = [[_terms(one, row) for one in model["classes"]] for row in rows]
    elif model["kind"] == "kernel":
        sums = [[_machine(model, row)] for row in rows]
    else:
        each = zip(rows, offsets, strict=True)
        sums = [[[*_terms(model, row), offset, *_bends(model.get("splines", ()), row)]] for row, offset in each]
    eta = np.array([[math.fsum(terms) for terms in row] for row in sums])
    return eta, max(math.fsum(map(abs, terms)) for row in sums for terms in row)


def _terms(model: Mapping[str, Any], row: Row) -> list[float]:
    return [model["intercept"], *(one["value"] * row[one["feature"]] for one in model["coefficients"])]


def _bends(splines: Sequence[Mapping[str, Any]], row: Row) -> list[float]:
    return [_spline(one, row[one["feature"]]) for one in splines]


def _spline(term: Mapping[str, Any], x: float) -> float:
    low, high = term["range"]
    x = low + (x - low) % (high - low) if term["cyclic"] else min(max(x, low), high)
    knots, degree = term["knots"], term["degree"]
    basis = (_basis(knots, j, degree, x, high) for j in range(len(term["coefficients"])))
    return math.fsum(c * b for c, b in zip(term["coefficients"], basis, strict=True))


def _basis(knots: Sequence[float], j: int, degree: int, x: float, end: float) -> float:
    """The recursion of Cox and de Boor; the last interval inside the range is closed at its end."""
    if degree == 0:
        return float(knots[j] <= x < knots[j + 1] or (x == end == knots[j + 1] == knots[-1] and knots[j] < x))
    value = 0.0
    if knots[j + degree] > knots[j]:
        value += (x - knots[j]) / (knots[j + degree] - knots[j]) * _basis(knots, j, degree - 1, x, end)
    if knots[j + degree + 1] > knots[j + 1]:
        share = (knots[j + degree + 1] - x) / (knots[j + degree + 1] - knots[j + 1])
        value += share * _basis(knots, j + 1, degree - 1, x, end)
    return value


def _machine(model: Mapping[str, Any], row: Row) -> list[float]:
    names, centre, scale = model["features"], model["centre"], model["scale"]
    x = [row[name] for name in names]
    each = zip(model["coefficients"], model["support"], strict=True)
    pairs = _Pairs(names, centre, scale)
    return [model["intercept"], *(c * pairs.kernel(model["kernel"], model["values"], x, z) for c, z in each)]


class _Pairs:
    """Kernels of two rows in original units."""

    def __init__(self, names: Sequence[str], centre: Sequence[float], scale: Sequence[float]) -> None:
        self.names, self.centre, self.scale = list(names), centre, scale

    def kernel(self, kernel: Mapping[str, Any], values: Mapping[str, float], x: Any, z: Any) -> float:
        """The kernel, with its hyperparameters by name."""
        columns = [self.names.index(name) for name in kernel.get("features") or self.names]
        widths = self._widths(kernel.get("widths"), columns, values)
        a = [(x[j] - self.centre[j]) / self.scale[j] / w for j, w in zip(columns, widths, strict=True)]
        b = [(z[j] - self.centre[j]) / self.scale[j] / w for j, w in zip(columns, widths, strict=True)]
        s = math.fsum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        g = math.fsum(p * q for p, q in zip(a, b, strict=True))
        if kernel["kind"] in OF_DISTANCE:
            return OF_DISTANCE[kernel["kind"]](s, kernel, values)
        match kernel["kind"]:
            case "periodic":
                turns = (math.sin(math.pi * (x[j] - z[j]) / values["period"]) for j in columns)
                return math.exp(-2 * math.fsum(t**2 / w**2 for t, w in zip(turns, widths, strict=True)))
            case "linear":
                return g
            case "polynomial":
                return float((values["constant"] + g) ** kernel["degree"])
            case "product":
                return math.prod(self._part(one, values, x, z) for one in kernel["factors"])
            case "sum":
                first, *others = kernel["terms"]
                weighted = (values[f"{_name(one)}.weight"] * self._part(one, values, x, z) for one in others)
                return self._part(first, values, x, z) + math.fsum(weighted)
        raise LookupError(f"write down the kernel {kernel['kind']} here")

    def _part(self, kernel: Mapping[str, Any], values: Mapping[str, float], x: Any, z: Any) -> float:
        begin = f"{_name(kernel)}."
        own = {name.removeprefix(begin): value for name, value in values.items() if name.startswith(begin)}
        return self.kernel(kernel, own, x, z)

    def _widths(self, widths: Mapping[str, Any] | None, columns: list[int], values: Mapping[str, float]) -> list[float]:
        if widths is None:
            return [1.0] * len(columns)
        if widths["kind"] == "per_group":
            group = {name: group for group, members in widths["groups"].items() for name in members}
            return [values[f"width[{group[self.names[j]]}]"] for j in columns]
        by_feature = widths["kind"] == "per_feature"
        return [values[f"width[{self.names[j]}]" if by_feature else "width"] for j in columns]


def _name(kernel: Mapping[str, Any]) -> str:
    return kernel.get("name") or kernel["kind"]


def _matern(nu: str, s: float) -> float:
    a = math.sqrt(int(nu[0]) * s)
    return {"1/2": 1.0, "3/2": 1 + a, "5/2": 1 + a + a**2 / 3}[nu] * math.exp(-a)
