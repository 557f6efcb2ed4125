"""Requests that are refused, one for each way to be wrong: the faults are what the corpus keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.corpus.parts import Case, Part, case, data, form, selection
from tests.corpus.tables import dataset_id, matrices, table

TABLE = table("number")
X, Y = TABLE["x"], TABLE["y"]


def _ridge(**settings: Any) -> Part:
    return {"training": {"kind": "ridge", **settings}}


def _machine(kernel: Any) -> Part:
    return {"training": {"kind": "kernel_ridge", "kernel": kernel}}


def _in_groups(**groups: list[str]) -> Part:
    return {"kind": "per_group", "groups": groups}


def _forms(*forms: Part) -> Part:
    return {"penalty": {"kind": "quadratic_forms", "forms": list(forms)}}


MALFORMED: dict[str, Part] = {
    "no kind": {"training": {}},
    "unknown training": {"training": {"kind": "rigde"}},
    "unknown selection": {"selection": {"kind": "kfold"}},
    "unknown outer": {"outer": {"kind": "adam"}},
    "unknown penalty": _ridge(penalty={"kind": "per_featur"}),
    "unknown kernel": _machine("rbff"),
    "unknown loss": {"selection": {"kind": "k_fold", "loss": "squared"}},
    "unknown field": _ridge(intercpt=True),
    "number as text": _ridge(penalty={"kind": "shared", "initial": "1"}),
    "negative penalty": _ridge(penalty={"kind": "shared", "initial": -1.0}),
    "box upside down": _ridge(penalty={"kind": "shared", "lower": 2.0, "upper": 1.0}),
    "outside the box": _ridge(penalty={"kind": "shared", "initial": 1e9, "upper": 1e6}),
    "no spread at all": _ridge(penalty={"kind": "per_feature", "spread": 0}),
    "spread of a word": _ridge(penalty={"kind": "per_group", "spread": "wide"}),
    "spread of one value": _ridge(penalty={"kind": "shared", "spread": 0.5}),
    "spread by no fold": {"spread_by": "nested"},
    "no forms": _ridge(**_forms()),
    "form without a name": _ridge(**_forms({"kind": "identity"})),
    "spline too small": _ridge(splines=[{"feature": "a", "basis": 3}]),
    "one term": _machine({"kind": "sum", "terms": [{"kind": "rbf"}]}),
    "kernel with settings": _machine("sum"),
    "widths": _machine({"kind": "rbf", "widths": {"kind": "shared", "initial": 1e9, "upper": 1e4}}),
    "spread of widths": _machine({"kind": "rbf", "widths": {"kind": "per_feature", "spread": 101}}),
    "one fold": {"selection": {"kind": "k_fold", "folds": 1}},
    "no initial": {"selection": {"kind": "walk_forward"}},
    "everything tested": {"test_fraction": 1.0},
    "webhook": {"webhook": "http://localhost"},
    "dataset id": {"data": {"dataset_id": "ds_0", "target": "y"}},
    "negative weight": {"data": {**TABLE, "weights": [-1.0] * 48}},
    "text among numbers": {"data": {**TABLE, "y": [1.0, "two", *[3.0] * 46]}},
    "multiplier": {"training": {"kind": "quadratic", "multipliers": [{"name": "h", "lower": -1.0}]}},
}
NO_TABLES: dict[str, Part] = {
    "no rows": {"x": [], "y": []},
    "no columns": {"x": [[] for _ in Y]},
    "ragged": {"x": [*X[:-1], [1.0]]},
    "short target": {"y": Y[:-1]},
    "short role": {"time": [1.0]},
    "no weight": {"weights": [0.0] * 48},
    "large value": {"x": [[1e200, *X[0][1:]], *X[1:]]},
    "large target": {"y": [1e200, *Y[1:]]},
    "small column": {"x": [[1e-100, *row[1:]] for row in X]},
    "names": {"features": ["a", "b", "a", "d"]},
    "number of names": {"features": ["a"]},
    "text": {"y": ["one"] * 48},
}
NO_CLASSES: dict[str, list[str]] = {
    "one class": ["yes"] * 48,
    "three classes": [f"class {i % 3}" for i in range(48)],
    "a lone row": ["no", *["yes"] * 47],
}
NOT_OF_THE_FEATURES: dict[str, Part] = {
    "unknown feature": {"penalty": _in_groups(g=["a", "z"])},
    "feature twice": {"penalty": _in_groups(g=["a", "a"])},
    "no group": {"penalty": _in_groups(g=["a"])},
    "two forms": _forms(form("identity"), form("identity")),
    "indefinite": _forms(form("matrix", matrix=[[1.0, 2.0], [2.0, 1.0]])),
    "asymmetric": _forms(form("matrix", matrix=[[1.0, 2.0], [1.0, 9.0]])),
    "size": _forms(form("matrix", matrix=[[1.0]])),
    "zero": _forms(form("matrix", matrix=[[0.0, 0.0], [0.0, 0.0]])),
    "band": _forms(form("banded", bands=[[1.0]])),
    "few neighbours": _forms(form("difference", features=["a", "b"])),
    "no sources": {"weights": {"kind": "per_source"}},
    "unknown spline": {"splines": [{"feature": "z"}]},
    "spline twice": {"splines": [{"feature": "a"}, {"feature": "a"}]},
    "range of a spline": {"splines": [{"feature": "a", "lower": 100.0}]},
}
NO_KERNELS: dict[str, Part] = {
    "unknown feature": {"kind": "rbf", "features": ["z"]},
    "width twice": {"kind": "rbf", "widths": _in_groups(g=["a"], h=["a"])},
    "no width": {"kind": "rbf", "widths": _in_groups(g=["a"])},
    "same names": {"kind": "sum", "terms": [{"kind": "rbf"}, {"kind": "rbf"}]},
}
NO_SPLITS: dict[str, Part] = {
    "folds": selection("k_fold", folds=49),
    "fraction": selection("holdout", fraction=0.001),
    "rows": selection("holdout", validation_rows=[48]),
    "row twice": selection("holdout", validation_rows=[1, 1]),
    "every row": selection("holdout", validation_rows=list(range(48))),
    "short folds": selection("given_folds", fold_of_row=[0, 1]),
    "groups": selection("group_k_fold", folds=40),
    "walk": selection("walk_forward", initial=48),
    "split weights": selection("k_fold", split_weights=[1.0]),
    "no split": selection("k_fold", split_weights=[0.0, 0.0, 0.0]),
}
NOT_OF_THE_FILE: dict[str, Part] = {
    "unknown dataset": {"dataset_id": "ds_" + "0" * 64},
    "unknown target": {"target": "nubmer"},
    "unknown feature": {"features": ["a", "z*"]},
    "target as a feature": {"features": ["number"]},
    "no feature": {"features": [{"all_but": ["*"]}]},
    "missing values": {"features": ["size"]},
    "dates": {"features": ["day"]},
    "text as a target": {"target": "kind"},
    "text as a time": {"time": "two"},
    "negative weights": {"weights": "a"},
    "folds": {"fold": "number"},
    "no rows": {"where": [{"column": "a", "min": 100.0}]},
}


def malformed() -> Iterator[Case]:
    """What a schema refuses."""
    for name, changes in MALFORMED.items():
        yield Case(f"refused/schema/{name}", {"data": TABLE, "training": {"kind": "ridge"}, **changes})


def tables() -> Iterator[Case]:
    """Tables that are not one, and targets that cannot be trained on."""
    for name, changes in NO_TABLES.items():
        yield case(f"refused/table/{name}", "ridge", data={**TABLE, **changes})
    two = table("two")
    for name, labels in NO_CLASSES.items():
        for kind in ("logistic", "kernel_svm"):
            yield case(f"refused/table/{kind}/{name}", kind, data={**two, "y": labels})
    rare = ["no" if i in {6, 9} else "yes" for i in range(48)]  # both are in one of the given folds
    for chosen in ("stratified_k_fold", "given_folds"):
        yield case(f"refused/table/logistic/rare class/{chosen}", "logistic", chosen, data={**two, "y": rare})
    yield case("refused/table/poisson/negative", "poisson", data={**TABLE, "y": [-1.0, *[1.0] * 47]})
    yield case("refused/table/poisson/zeros", "poisson", data={**TABLE, "y": [0.0] * 47 + [1.0]})
    yield case("refused/table/gamma/zero", "gamma", data={**TABLE, "y": [0.0, *[1.0] * 47]})


def plans() -> Iterator[Case]:
    """Parts that do not fit the features or the rows."""
    for name, settings in NOT_OF_THE_FEATURES.items():
        yield case(f"refused/plan/ridge/{name}", "ridge", training=settings)
    for name, made in NO_KERNELS.items():
        yield case(f"refused/plan/kernel_ridge/{name}", "kernel_ridge", training={"kernel": made})
    for name, chosen in NO_SPLITS.items():
        yield case(f"refused/plan/selection/{name}", "ridge", chosen, data=data("ridge", roles=("groups",)))
    both = selection("given_folds", fold_of_row=[0, 1] * 24)
    yield case("refused/plan/selection/both", "ridge", both)
    yield case("refused/plan/test part", "ridge", test_fraction=0.001)
    yield case("refused/plan/nested/given folds", "ridge", "given_folds", nested={"folds": 2})
    yield case("refused/plan/nested/few rows", "ridge", "walk_forward", nested={"folds": 2})


def files() -> Iterator[Case]:
    """Columns of datasets that cannot be what they should be; what only a worker sees is a failure."""
    good: Part = {"dataset_id": dataset_id("table"), "target": "number", "features": ["a", "b"]}
    for name, changes in NOT_OF_THE_FILE.items():
        yield case(f"refused/file/{name}", "ridge", data={**good, **changes})
    for target in ("number", "three"):
        yield case(f"refused/file/classes/{target}", "logistic", data={**good, "target": target})
    sparse: Part = {"dataset_id": dataset_id("sparse numbers"), "target": "label"}
    yield case("refused/file/sparse source", "ridge", data={**sparse, "source": "3"})
    yield case("refused/file/sparse classes", "logistic", data={**sparse, "target": "3"})


def criteria() -> Iterator[Case]:
    """Matrices that are none, or have no effect."""
    good = matrices(3)
    first, *rest = good["matrices"]
    changed: dict[str, Part] = {
        "no vector": {"vectors": []},
        "nothing to tune": {"matrices": [first], "vectors": good["vectors"][:1]},
        "shape": {"matrices": [[[1.0]], *rest]},
        "asymmetric": {"matrices": [[[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], *rest]},
        "place": {"matrices": [{"rows": [3], "columns": [3], "values": [1.0]}, *rest]},
        "length": {"vectors": [*good["vectors"][:2], [1.0]]},
        "no effect": {"matrices": [first, None, None], "vectors": good["vectors"][:1]},
        "nothing to minimize": {"selection": {"constant": 1.0}},
    }
    for name, changes in changed.items():
        yield case(f"refused/own/{name}", "quadratic", "quadratic", data={**good, **changes})
    for name, multipliers in {"number": [{"name": "only"}], "names": [{"name": "h"}, {"name": "h"}]}.items():
        settings = {"multipliers": multipliers}
        yield case(f"refused/own/multipliers/{name}", "quadratic", "quadratic", training=settings)
