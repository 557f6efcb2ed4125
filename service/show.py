"""Results as text, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 40  # rows of a table


def result_table(result: Mapping[str, Any]) -> str:
    """Hyperparameters beside coefficients, then scores and certificates."""
    model = result["model"]
    slopes = _slopes(model) if model else {}
    rows: list[tuple[str, ...]] = [("hyperparameter", "initial", "tuned", "at bound")]
    rows += [
        (item["name"], f"{item['initial']:.4g}", f"{item['value']:.4g}", item["at_bound"] or "")
        for item in result["hyperparameters"][:MOST]
    ]
    more = len(result["hyperparameters"]) - MOST
    parts = [_table(rows) + (f"\n... and {more} more" if more > 0 else "")]
    if slopes:
        shown: list[tuple[str, ...]] = [("feature", "coefficient")]
        if "intercept" in model:
            shown.append(("(intercept)", f"{model['intercept']:.6g}"))
        parts.append(_table([*shown, *((name, f"{value:.6g}") for name, value in list(slopes.items())[:MOST])]))
    if model and model["kind"] == "additive":
        parts.append(_table(_splines(model["splines"])))
    parts.append(_table(_scores(result)))
    parts += [f"note: {message}" for message in result["messages"]]
    return "\n\n".join(parts)


def _slopes(model: Mapping[str, Any]) -> dict[str, float]:
    if model["kind"] == "quadratic":
        return {f"theta[{i}]": value for i, value in enumerate(model["theta"])}
    return {item["feature"]: item["value"] for item in model["coefficients"]}


def _splines(terms: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each smooth function: B-splines lie between their lowest and their highest coefficient."""
    rows: list[tuple[str, ...]] = [("spline of", "within", "coefficients", "lowest", "highest")]
    for term in terms[:MOST]:
        low, high = term["range"]
        within = f"{low:.4g} to {high:.4g}" + (", cyclic" if term["cyclic"] else "")
        coefficients = term["coefficients"]
        rows.append(
            (term["feature"], within, str(len(coefficients)), f"{min(coefficients):.6g}", f"{max(coefficients):.6g}")
        )
    return rows


def _scores(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    selection, counts, method = result["selection"], result["counts"], result["method"]
    error = selection["standard_error"]
    rows: list[tuple[str, ...]] = [
        ("selection criterion", f"{selection['value']:.8g}" + (f" +- {error:.3g}" if error else "")),
        ("  before tuning", f"{selection['initial_value']:.8g}" if selection["initial_value"] is not None else "-"),
    ]
    if result["test"]:
        rows.append(("test rows", f"{result['test']['value']:.8g}"))
    if (nested := result.get("nested")) and nested["value"] is not None:
        rows.append(("nested cross-validation", f"{nested['value']:.8g}"))
    work = f"{counts['iterations']} iterations, {counts['evaluations']} evaluations"
    rows += [
        ("stopped because", result["message"]),
        ("work", f"{work}, {counts['factorizations']} factorizations"),
        ("method", f"{method['hypergradient']}, {method['outer']}"),
    ]
    rows += [
        (f"certificate: {name.replace('_', ' ')}", f"{value:.1e}" if isinstance(value, float) else value or "-")
        for name, value in result["certificates"].items()
    ]
    return rows


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
