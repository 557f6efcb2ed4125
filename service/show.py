"""Results as text, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MOST = 40  # rows of a table
CLASSES = 6  # columns of one


def result_table(result: Mapping[str, Any]) -> str:
    """Hyperparameters beside coefficients, then scores and certificates."""
    model = result["model"]
    rows: list[tuple[str, ...]] = [("hyperparameter", "initial", "tuned", "at bound")]
    rows += [
        (item["name"], f"{item['initial']:.4g}", f"{item['value']:.4g}", item["at_bound"] or "")
        for item in result["hyperparameters"][:MOST]
    ]
    more = len(result["hyperparameters"]) - MOST
    parts = [_table(rows) + (f"\n... and {more} more" if more > 0 else "")]
    if model:
        parts.append(_table(_coefficients(model)))
    if model and model["kind"] == "additive":
        parts.append(_table(_splines(model["splines"])))
    parts.append(_table(_scores(result)))
    parts += [f"note: {message}" for message in result["messages"]]
    return "\n\n".join(parts)


def _coefficients(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A column of coefficients; of a multinomial model one for each class, as many as fit on a line."""
    if model["kind"] == "quadratic":
        return [("parameter", "value"), *((f"theta[{i}]", f"{v:.6g}") for i, v in enumerate(model["theta"][:MOST]))]
    if model["kind"] == "multinomial":
        outputs, heads = model["classes"][:CLASSES], [one["name"][:12] for one in model["classes"][:CLASSES]]
    else:
        outputs, heads = [model], [f"coefficient (of {model['classes'][1]})" if model.get("classes") else "coefficient"]
    rows: list[tuple[str, ...]] = [("feature", *heads)]
    rows.append(("(intercept)", *(f"{one['intercept']:.6g}" for one in outputs)))
    features = [item["feature"] for item in outputs[0]["coefficients"][:MOST]]
    for j, feature in enumerate(features):
        rows.append((feature, *(f"{one['coefficients'][j]['value']:.6g}" for one in outputs)))
    if len(model.get("classes") or ()) > len(outputs) > 1:
        rows.append((f"... and {len(model['classes']) - len(outputs)} more classes", *("" for _ in outputs)))
    return rows


def _measures(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    found = {name: value for name, value in scores.get("measures", {}).items() if value is not None}
    return [(f"  {name.replace('_', ' ')}", f"{value:.6g}") for name, value in found.items()]


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
    error, corrected = selection["standard_error"], selection.get("corrected_value")
    rows: list[tuple[str, ...]] = []
    if corrected is not None:
        rows.append(
            ("expected on new rows (corrected value)", f"{corrected:.8g}" + (f" +- {error:.3g}" if error else ""))
        )
    rows += [
        ("selection criterion", f"{selection['value']:.8g}" + (f" +- {error:.3g}" if error else "")),
        *_compared(result),
        ("  before tuning", f"{selection['initial_value']:.8g}" if selection["initial_value"] is not None else "-"),
    ]
    rows += _measures(selection)
    if test := result["test"]:
        rows.append(("test rows", f"{test['value']:.8g}" if test["value"] is not None else "-"))
        rows += _measures(test)
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


def _compared(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The best shared value, the difference to it, and the spread that was chosen, as far as there are."""
    if baseline := result.get("baseline"):
        error = baseline["difference_se"]
        yield "  of the best shared value", f"{baseline['value']:.8g}"
        yield "  difference to it", f"{baseline['difference']:+.4g}" + (f" +- {error:.3g}" if error else "")
    if spread := result.get("spread"):
        shared = " (one shared value)" if spread["chosen"] == 0 else ""
        yield "  spread of hyperparameters", f"{spread['chosen']:g}{shared}"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
