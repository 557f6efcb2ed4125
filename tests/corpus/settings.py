"""Cases of single settings: fixed weights, splines, solvers, starts, budgets, and data in every form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.corpus.parts import (
    ITERATIVE,
    LINEAR,
    MACHINES,
    PERIOD,
    TABLE,
    TRAININGS,
    Case,
    Part,
    case,
    closed_forms,
    data,
    form,
    outer,
    penalty,
    selection,
    target,
    training,
)
from tests.corpus.tables import ORDER, dataset_id, matrices, table, wide

SPLINES: dict[str, list[Part]] = {
    "one": [{"feature": "a", "basis": 8}],
    "two": [
        {"feature": "a", "basis": 6, "degree": 2, "order": 1},
        {"feature": "d", "basis": 7, "cyclic": True, "lower": -3.0, "upper": 3.0},
    ],
    "all": [{"feature": name, "basis": 6, "order": 3} for name in "abcd"],
}
SHARED: Part = {"kind": "shared", "initial": 0.1}
CLASSIFIERS = [kind for kind in TABLE if TRAININGS[kind].classifies]


def columns() -> Iterator[Case]:
    """Whether there is an intercept, whether columns are standardized, and one penalty alone."""
    for kind in TABLE:
        for name, settings in {
            "no intercept": {"intercept": False},
            "raw": {"standardize": False},
            "neither": {"intercept": False, "standardize": False},
            "one": {"penalty": SHARED} if kind in LINEAR else {"kernel": "rbf"},
        }.items():
            for selected in ("k_fold", *closed_forms(kind)):
                yield case(f"columns/{kind}/{selected}/{name}", kind, selected, training=settings)


def splines() -> Iterator[Case]:
    """Splines with every linear training criterion, and with penalties that leave something to the other features."""
    for kind in LINEAR:
        for name, made in SPLINES.items():
            for selected in ("k_fold", *closed_forms(kind)):
                yield case(f"splines/{kind}/{selected}/{name}", kind, selected, training={"splines": made})
    few = form("difference", features=["b", "c"], order=1)
    rest: dict[str, Part] = {
        "per_group": {"penalty": {"kind": "per_group"}},
        "forms": {"penalty": {"kind": "quadratic_forms", "forms": [few]}},
        "weights": {"weights": {"kind": "sigmoid_time"}},
    }
    for name, settings in rest.items():
        yield case(f"splines/ridge/beside/{name}", "ridge", training={"splines": SPLINES["two"], **settings})


def rows() -> Iterator[Case]:
    """What rows count for: fixed weights, weights of scoring, weights of classes, offsets."""
    for kind in TABLE:
        for selected in ("k_fold", *closed_forms(kind)):
            for roles in (("weights",), ("scoring",), ("weights", "scoring"), ("offset",)):
                name = f"rows/{kind}/{selected}/{'+'.join(roles)}"
                yield case(name, kind, selected, data=data(kind, roles=(*ORDER, *roles)))
    for kind in CLASSIFIERS:
        last = "top" if kind == "multinomial" else "yes"
        for name, weights in {"balanced": "balanced", "named": {last: 3.5}, "unknown": {"who": 2.0}}.items():
            for selected in ("k_fold", *closed_forms(kind)):
                settings = {"class_weights": weights}
                yield case(f"rows/{kind}/{selected}/classes {name}", kind, selected, training=settings)
    late = {"weights": [0.0] * 24 + [1.0] * 24, "scoring": [1.0] * 48}  # rows that are scored and do not train
    for kind in ("ridge", "kernel_ridge"):
        for selected in ("k_fold", "walk_forward", *closed_forms(kind)):
            yield case(f"rows/{kind}/{selected}/late", kind, selected, data=data(kind, roles=ORDER[1:], **late))
    for name, made in {
        "sigmoid": {"kind": "sigmoid_time", "steepness": 5.0, "midpoint": 0.5},
        "days": {"kind": "exponential_time", "unit": "time", "decay_time": 10.0},
        "sources": {"kind": "per_source", "upper": 3.0},
    }.items():
        given = data("ridge", roles=(*ORDER, "source", "weights"))
        yield case(f"rows/ridge/tuned/{name}", "ridge", training={"weights": made}, data=given)


def splits() -> Iterator[Case]:
    """Settings of selection criteria."""
    ordered = selection("walk_forward", step=6, gap=2, window=20, horizon=5)
    chosen: dict[str, Part] = {
        "in order": selection("k_fold", shuffle=False),
        "seed": selection("k_fold", seed=5, folds=4),
        "split weights": selection("k_fold", split_weights=[1.0, 0.0, 2.5]),
        "rows": selection("holdout", validation_rows=[0, 5, 10, 15, 40]),
        "listed folds": selection("given_folds", fold_of_row=[i * i % 3 for i in range(48)]),
        "walk": ordered,
        "huber": selection("k_fold", loss={"kind": "huber", "delta": 0.3}),
        "quantile": selection("k_fold", loss={"kind": "quantile_error", "quantile": 0.8, "smoothing": 0.1}),
        "noise": selection("evidence", noise_variance={"initial": 0.5}),
        "noise of reml": selection("reml", noise_variance={"initial": 0.5}),
        "one fit": selection("leave_one_out", loss={"kind": "absolute_error", "smoothing": 0.2}),
    }
    for kind in ("ridge", "huber", "kernel_ridge"):
        for name, made in chosen.items():
            without = {"data": data(kind, roles=())} if name in {"listed folds", "walk"} else {}
            yield case(f"splits/{kind}/{name}", kind, made, **without)
    for kind in ("logistic", "squared_hinge", "kernel_svm"):
        for name, made in {
            "error": {"kind": "smoothed_error", "slope": 3.0},
            "auc": {"kind": "smoothed_auc", "slope": 2.0},
            "f": {"kind": "smoothed_f", "slope": 4.0, "beta": 2.0},
        }.items():
            yield case(f"splits/{kind}/{name}", kind, selection("stratified_k_fold", loss=made))


def procedures() -> Iterator[Case]:
    """Test parts, nested cross-validation, several starts, budgets: every training criterion with each."""
    parts: dict[str, Part] = {
        "test part": {"test_fraction": 0.25, "seed": 3},
        "nested": {"nested": {"folds": 2, "seed": 1}},
        "starts": {"outer": outer(starts=3), "seed": 2},
        "evaluations": {"limits": {"evaluations": 3}},
        "target value": {"limits": {"target_value": 1e6}},
        "tolerance": {"outer": outer(tolerance=0.1)},
        "everything": {"test_fraction": 0.2, "nested": {"folds": 2}, "outer": outer("lbfgs", starts=2)},
    }
    for kind in TRAININGS:
        selected = "k_fold" if kind in TABLE else "quadratic"
        for name, made in parts.items():
            yield case(f"procedure/{kind}/{selected}/{name}", kind, selected, **made)
    early = {"walk_forward": {"initial": 8, "horizon": 8}}  # the first outer fold is tuned on 12 rows
    for kind in ("ridge", "poisson", "kernel_ridge"):
        for selected in ("walk_forward", "group_k_fold", "holdout", *closed_forms(kind)):
            made, chosen = parts["test part"] | parts["nested"], selection(selected, **early.get(selected, {}))
            yield case(f"procedure/{kind}/{selected}/nested", kind, chosen, **made)


def spreads() -> Iterator[Case]:
    """Like hyperparameters without a hyper-prior, and with one of a given width; the path of `auto` in other settings.

    All other cases with like hyperparameters have the default, `auto`.
    """
    for kind in TABLE:
        for name, spread in {"none": None, "narrow": 0.1, "wide": 2.0}.items():
            for selected in ("k_fold", *closed_forms(kind)):
                yield case(f"spread/{kind}/{selected}/{name}", kind, selected, training=_like(kind, spread))
    several: dict[str, Part] = {
        "starts": {"outer": outer(starts=3)},
        "nested": {"nested": {"folds": 2}},
        "by nested": {"nested": {"folds": 2}, "spread_by": "nested"},
        "in the shared search": {"limits": {"evaluations": 9}},
        "on the path": {"limits": {"evaluations": 24}},
        "groups": {"selection": selection("group_k_fold")},
        "time": {"selection": selection("walk_forward")},
    }
    for kind in ("ridge", "logistic", "multinomial", "kernel_ridge"):
        for name, parts in several.items():
            yield case(f"spread/{kind}/auto/{name}", kind, training=_like(kind, "auto"), **parts)
    kinds = {"penalty": {"kind": "per_feature", "spread": 0.5}, "splines": SPLINES["one"]}
    yield case("spread/ridge/beside splines", "ridge", training=kinds)
    mixed = {"kind": "rbf", "widths": {"kind": "per_feature", "spread": 0.5}}
    both = {"kind": "product", "factors": [mixed, {"kind": "matern", "nu": "3/2", "widths": "per_feature"}]}
    yield case("spread/kernel_ridge/given and auto", "kernel_ridge", training={"kernel": both})


def _like(kind: str, spread: float | str | None) -> Part:
    """Settings with one penalty or width for each feature, or one penalty for each class."""
    if kind in MACHINES:
        return {"kernel": {"kind": "rbf", "widths": {"kind": "per_feature", "spread": spread}}}
    alike = "per_class" if kind == "multinomial" else "per_feature"
    return {"penalty": {"kind": alike, "initial": 0.1, "spread": spread}}


def solvers() -> Iterator[Case]:
    """Which matrix is factored, of features or of rows, or decomposed once; conjugate gradients; shapes of losses."""
    starts = outer("newton", starts=4)
    for selected in ("k_fold", *closed_forms("ridge")):
        for name, made in {"shared": SHARED, "each": penalty("per_feature", initial=0.1)}.items():
            settings = {"penalty": made}
            yield case(f"solver/dual/{selected}/{name}", "ridge", selected, training=settings, data=wide("number"))
        yield case(f"solver/spectral/{selected}", "ridge", selected, training={"penalty": SHARED}, outer=starts)
    backwards = {"hypergradient": {"kind": "cholesky_backprop"}, "data": wide("number")}
    yield case("solver/dual/k_fold/backprop", "ridge", training={"penalty": SHARED}, **backwards)
    yield case("solver/primal/k_fold/exact", "ridge", data=table("number", y=[row[0] for row in table("number")["x"]]))
    for kind in ITERATIVE:
        for solver in ("newton_cholesky", "newton_cg"):
            for method in ("auto", "newton", "lbfgs", "inexact", "hoag"):
                parts = {"training": {"solver": solver}, "outer": outer(method)}
                yield case(f"solver/{kind}/{solver}/{method}", kind, **parts)
    for schedule in ("quadratic", "cubic", "exponential"):
        yield case(f"solver/hoag/{schedule}", "logistic", outer=outer("hoag", schedule=schedule))
    for intercept in (True, False):
        hinge: Part = {"hinge": "huberized", "half_width": 0.3, "intercept": intercept}
        yield case(f"solver/huberized/{'intercept' if intercept else 'none'}", "kernel_svm", training=hinge)
    for name in ("1/2", "3/2", "5/2"):
        smooth = {"kernel": {"kind": "matern", "nu": name, "widths": "per_feature"}}
        yield case(f"solver/matern/{name[0]} halves", "kernel_ridge", "evidence", training=smooth)
    yield case("solver/huber/delta", "huber", training={"delta": 0.4})


def datasets() -> Iterator[Case]:
    """Files: categories, dates, missing values, ranges of rows, roles by their columns, sparse columns."""
    some = ["a", "b", "size", "kind", "level", "day"]
    full: Part = {
        "features": some, "categorical": ["level"], "dates": {"day": ["days", "weekday", "year"]},
        "missing": {"default": {"fill": "mean", "indicator": True}}, "groups": "groups", "time": "time",
    }  # fmt: skip
    plain: Part = {"features": ["a", "b", "size"], "fold": "fold", "source": "source", "time": "time"}
    median = {"columns": {"size": {"fill": "median"}}}
    forms: dict[str, Part] = {
        "everything": full,
        "median": {**plain, "missing": median},
        "constant": {**plain, "missing": {"columns": {"size": {"fill": "constant", "value": -0.5}}}},
        "where": {**plain, "where": [{"column": "size"}, {"column": "a", "min": -1.5, "max": 2.0}]},
        "pattern": {"features": ["[a-c]", "*e"], "missing": {"default": {"fill": "median"}}},
        "weights": {**plain, "missing": median, "weights": "weights", "scoring": "scoring"},
        "offset": {"features": ["a", "c"], "offset": "offset"},
        "refused": plain,
    }
    for kind in TABLE:
        grouped = {"penalty": {"kind": "per_group", "initial": 0.1}} if kind in LINEAR else {}
        for name, made in forms.items():
            of = {"dataset_id": dataset_id("table"), "target": target(kind), **made}
            settings = grouped if name in {"everything", "pattern"} else {}
            yield case(f"dataset/{kind}/{name}", kind, training=settings, data=of)
        for selected in closed_forms(kind):
            of = {"dataset_id": dataset_id("table"), "target": target(kind), **forms["median"]}
            yield case(f"dataset/{kind}/{selected}", kind, selected, data=of)
        yield from _sparse(kind)
    yield from _written(full)


def _sparse(kind: str) -> Iterator[Case]:
    file = {"two": "sparse two", "three": "sparse three"}.get(target(kind), "sparse numbers")
    of = {"dataset_id": dataset_id(file), "target": "label"}
    simple: Part = {"penalty": SHARED} if kind in LINEAR else {"kernel": "linear"}
    for name, settings in {"shared": simple, "raw": {**simple, "standardize": False}}.items():
        for selected in ("k_fold", *closed_forms(kind)):
            yield case(f"sparse/{kind}/{selected}/{name}", kind, selected, training=settings, data=of)


def _written(full: Part) -> Iterator[Case]:
    """Features of datasets in the settings of training: splines, groups of widths, sources."""
    of = {"dataset_id": dataset_id("table"), "target": "number", **full}
    groups = {"numbers": ["a", "b", "size"], "rest": ["kind", "level", "day"]}
    in_groups = {"kind": "rbf", "widths": {"kind": "per_group", "groups": groups}}
    yield case("dataset/written/widths", "kernel_ridge", training={"kernel": in_groups}, data=of)
    yield case("dataset/written/groups", "ridge", training={"penalty": penalty("per_group", groups=groups)}, data=of)
    bent = [{"feature": "size", "basis": 6}, {"feature": "day[days]", "basis": 5}]
    yield case("dataset/written/splines", "ridge", training={"splines": bent}, data=of)
    tuned = {**of, "source": "source"}
    yield case("dataset/written/sources", "ridge", training={"weights": {"kind": "per_source"}}, data=tuned)
    yield case("dataset/written/grouped rows", "ridge", "group_k_fold", data=of)
    yield case("dataset/written/walk", "ridge", "walk_forward", data=of)
    periodic = {"kind": "periodic", "features": ["day[days]"], "period": {**PERIOD, "initial": 20.0}}
    yield case("dataset/written/period", "kernel_ridge", "evidence", training={"kernel": periodic}, data=of)


def own_criteria() -> Iterator[Case]:
    """Matrices of the caller's own: dense, banded, sparse, and multipliers of any sign."""
    either = [
        {"name": "first", "initial": 0.5, "lower": 1e-3, "upper": 1e3},
        {"name": "second", "scale": "linear", "initial": 0.2, "lower": -0.9, "upper": 4.0},
    ]
    ring = matrices(60, chain=True)
    ring["matrices"][2] = {"rows": [0, 30, 59, 12], "columns": [30, 0, 12, 59], "values": [0.3, 0.3, 0.3, 0.3]}
    for name, given in {"dense": matrices(6), "chain": matrices(60, chain=True), "ring": ring}.items():
        for method in ("implicit", "cholesky_backprop"):
            for scale, multipliers in {"log": None, "linear": either}.items():
                parts: Any = {"training": {"multipliers": multipliers}, "hypergradient": {"kind": method}}
                yield case(f"own/{name}/{method}/{scale}", "quadratic", "quadratic", data=given, **parts)
    indefinite = matrices(3)
    indefinite["matrices"][:2] = [[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], None]
    indefinite["vectors"][1] = [0.0, 1.0, 0.0]
    yield case("own/indefinite", "quadratic", "quadratic", data=indefinite)
    parts = {"data": matrices(3), "training": training("quadratic"), "outer": outer()}
    yield Case("own/default selection", parts)


def failures() -> Iterator[Case]:
    """Searches that cannot begin, and data of which a result says something."""
    twice = [[*row, row[0]] for row in table("number")["x"]]
    nothing: Part = {"kind": "shared", "initial": 1e-300, "lower": 1e-305, "upper": 1e6}
    names = [*"abcd", "again"]
    for kind in LINEAR:
        given = table(target(kind), x=twice, features=names)
        settings = {"penalty": nothing, "standardize": False}
        yield case(f"failure/{kind}/singular", kind, training=settings, data=given)
    huge = [[1e60 * value for value in row] for row in table("number")["x"]]
    for kind in TABLE:
        yield case(f"failure/{kind}/huge", kind, training={"standardize": False}, data=data(kind, x=huge))
        still = [[row[0], 2.5, *row[2:]] for row in table("number")["x"]]
        yield case(f"failure/{kind}/constant column", kind, data=data(kind, x=still))
    for selected in closed_forms("ridge"):
        for kind in ("ridge", "kernel_ridge"):
            yield case(f"failure/{kind}/constant target/{selected}", kind, selected, data=data(kind, y=[1.0] * 48))
    for kind in MACHINES:
        same = [[1.0] * 4] * 48
        yield case(f"failure/{kind}/equal rows", kind, data=data(kind, x=same))
