"""Classes, counts and other targets through the whole stack, beside other implementations of the same criterion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.linear_model import GammaRegressor, LogisticRegression, PoissonRegressor
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from tests.datasets.test_roles import csv_file
from tests.service.api import Api, faults
from tests.service.tabular import upload

N = 120
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, 3)) @ np.diag([1.0, 2.0, 0.5]) + [0.0, 3.0, -1.0]
ETA = X @ [0.8, -0.3, 0.0] + 1.0
LABEL = np.where(ETA + RNG.logistic(size=N) > 0, "yes", "no")
THREE = np.array(["low", "mid", "top"])[np.digitize(ETA + RNG.logistic(size=N), [-0.7, 0.7])]
COUNT = RNG.poisson(np.exp(ETA / 2)).astype(float)
AMOUNT = RNG.gamma(3.0, np.exp(ETA / 2) / 3.0)
NOISY = ETA + RNG.standard_t(2, size=N)
EXPOSURE = RNG.normal(size=N) * 0.3
WEIGHT = RNG.integers(1, 4, size=N).astype(float)
FEW_YES = float(np.sort(X[LABEL == "yes", 0])[0])  # up to there, the class "yes" has one row
PLAIN = {"standardize": False, "penalty": {"kind": "shared", "initial": 0.01, "lower": 1e-4, "upper": 1e3}}
FOLDS = {"kind": "k_fold", "folds": 4}


def inline(y: Any, **roles: Any) -> dict[str, Any]:
    rows = {name: np.asarray(values).tolist() for name, values in roles.items()}
    return {"x": X.tolist(), "y": np.asarray(y).tolist(), **rows}


def solved(api: Api, data: dict[str, Any], kind: str, **rest: Any) -> dict[str, Any]:
    """The result of a job with one penalty."""
    training = {"kind": kind, **PLAIN, **rest.pop("training", {})}
    job = api.ended(api.created({"data": data, "training": training, "selection": FOLDS, **rest})["id"])
    assert job["status"] == "succeeded", job
    result = api.result(job["id"])
    assert result["stop_reason"] in {"converged", "at_bounds"}, result["message"]
    certificates = result["certificates"]
    assert certificates["inner_gradient_norm"] < 1e-11
    smooth = kind not in {"huber", "squared_hinge"}  # a difference across a kink is of a lower order
    assert certificates["finite_difference_error"] < (1e-7 if smooth else 1e-3)
    assert result["method"]["solver"] == "newton_cholesky"
    assert "Newton's method with a factor" in result["method"]["why"][0]
    return result


def linear(result: dict[str, Any]) -> np.ndarray:
    """Intercept, then slopes."""
    model = result["model"]
    return np.array([model["intercept"], *(item["value"] for item in model["coefficients"])])


def penalty(result: dict[str, Any]) -> float:
    return float(result["hyperparameters"][0]["value"])


def of_sklearn(model: Any, y: Any) -> np.ndarray:
    fitted = model.fit(X, y)
    return np.append(np.ravel(fitted.intercept_), np.ravel(fitted.coef_))


def test_logistic_of_names(live: Api) -> None:
    result = solved(live, inline(LABEL), "logistic")
    theirs = LogisticRegression(C=1 / (N * penalty(result)), solver="newton-cholesky", tol=1e-12)
    assert_allclose(linear(result), of_sklearn(theirs, LABEL), rtol=1e-6, atol=1e-8)
    model = result["model"]
    assert (model["kind"], model["link"], model["classes"]) == ("linear", "logit", ["no", "yes"])


def test_the_measures_of_two_classes_are_those_of_the_pooled_validation_rows(live: Api) -> None:
    fold = np.arange(N) % 4
    spec = {"selection": {"kind": "given_folds"}, "test_fraction": 0.0}
    result = solved(live, inline(LABEL, fold=fold), "logistic", **spec)
    eta = np.empty(N)
    for k in range(4):
        here = fold == k
        theirs = LogisticRegression(C=1 / ((~here).sum() * penalty(result)), solver="newton-cholesky", tol=1e-12)
        eta[here] = theirs.fit(X[~here], LABEL[~here]).decision_function(X[here])
    measures, truth = result["selection"]["measures"], LABEL == "yes"
    assert measures["error_rate"] == pytest.approx(1 - accuracy_score(truth, eta > 0))
    assert measures["auc"] == pytest.approx(roc_auc_score(truth, eta))
    assert measures["f1"] == pytest.approx(f1_score(truth, eta > 0))
    loss = np.logaddexp(0.0, np.where(truth, -eta, eta)).mean()
    assert result["selection"]["value"] == pytest.approx(loss, rel=1e-9)


def test_multinomial(live: Api) -> None:
    result = solved(live, inline(THREE), "multinomial", test_fraction=0.0)
    model = result["model"]
    assert (model["kind"], [one["name"] for one in model["classes"]]) == ("multinomial", ["low", "mid", "top"])
    theirs = LogisticRegression(C=1 / (N * penalty(result)), tol=1e-12, max_iter=10_000).fit(X, THREE)
    slopes = [[item["value"] for item in one["coefficients"]] for one in model["classes"]]
    assert_allclose(slopes, theirs.coef_, atol=1e-5)
    intercepts = np.array([one["intercept"] for one in model["classes"]])
    assert_allclose(intercepts - intercepts.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-5)
    assert set(result["selection"]["measures"]) == {"error_rate"}


@pytest.mark.parametrize(
    ("kind", "y", "theirs"), [("poisson", COUNT, PoissonRegressor), ("gamma", AMOUNT, GammaRegressor)]
)
def test_counts_and_amounts(live: Api, kind: str, y: np.ndarray, theirs: type) -> None:
    result = solved(live, inline(y), kind)
    model = theirs(alpha=penalty(result), solver="newton-cholesky", tol=1e-12)
    assert_allclose(linear(result), of_sklearn(model, y), rtol=1e-6, atol=1e-8)
    assert (result["model"]["link"], result["model"]["classes"]) == ("log", None)
    assert result["selection"]["measures"] == {}


def descended(criterion: Any) -> np.ndarray:
    """The minimizer of `criterion(eta) -> losses, slopes` weighted and penalized as a test says."""
    start = np.zeros(4)
    found = minimize(criterion, start, jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 1000})
    return np.asarray(found.x)


def penalized(lam: float, losses: Any, w: np.ndarray) -> Any:
    Z = np.column_stack([np.ones(N), X])

    def criterion(theta: np.ndarray) -> tuple[float, np.ndarray]:
        values, slopes = losses(Z @ theta)
        prior = lam * np.append(0.0, theta[1:])
        return w @ values / w.sum() + prior @ theta / 2, Z.T @ (w * slopes) / w.sum() + prior

    return criterion


def test_an_offset_and_weights(live: Api) -> None:
    result = solved(live, inline(COUNT, offset=EXPOSURE, weights=WEIGHT), "poisson")

    def losses(eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mu = np.exp(eta + EXPOSURE)
        return mu - COUNT * (eta + EXPOSURE), mu - COUNT

    assert_allclose(linear(result), descended(penalized(penalty(result), losses, WEIGHT)), atol=1e-6)


def test_huber(live: Api) -> None:
    result = solved(live, inline(NOISY), "huber", training={"delta": 0.7})

    def losses(eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r = NOISY - eta
        inside = np.clip(r, -0.7, 0.7)
        return inside * (r - inside / 2), -inside

    assert_allclose(linear(result), descended(penalized(penalty(result), losses, np.ones(N))), atol=1e-6)
    assert result["model"]["link"] == "identity"


def test_a_linear_support_vector_machine_with_class_weights(live: Api) -> None:
    result = solved(live, inline(LABEL), "squared_hinge", training={"class_weights": {"no": 3.0}})
    sign = np.where(LABEL == "yes", 1.0, -1.0)

    def losses(eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        short = np.maximum(1 - sign * eta, 0.0)
        return short**2 / 2, -sign * short

    w = np.where(LABEL == "no", 3.0, 1.0)
    assert_allclose(linear(result), descended(penalized(penalty(result), losses, w)), atol=1e-6)
    assert (result["model"]["link"], result["model"]["classes"]) == ("identity", ["no", "yes"])


TABLE = {
    "a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "label": LABEL, "three": THREE, "count": COUNT, "amount": AMOUNT,
    "noisy": NOISY, "grade": np.digitize(ETA, [-0.7, 0.7]) + 1.0, "exposure": EXPOSURE, "weight": WEIGHT,
}  # fmt: skip
TARGETS = {
    "logistic": ("label", LABEL),
    "squared_hinge": ("label", LABEL),
    "multinomial": ("three", THREE),
    "poisson": ("count", COUNT),
    "gamma": ("amount", AMOUNT),
    "huber": ("noisy", NOISY),
}


@pytest.fixture(scope="module")
def table(live: Api) -> str:
    columns = {name: [value.item() for value in values] for name, values in TABLE.items()}
    return str(upload(live, csv_file(columns), "text/csv")["id"])


@pytest.mark.parametrize("kind", TARGETS)
def test_a_dataset_gives_the_same_numbers_as_the_rows_themselves(live: Api, table: str, kind: str) -> None:
    target, y = TARGETS[kind]
    offset = {} if kind == "multinomial" else {"offset": EXPOSURE}
    data = {"dataset_id": table, "target": target, "features": ["a", "b", "c"], "weights": "weight"}
    data |= {"offset": "exposure"} if offset else {}
    rest = {"test_fraction": 0.2, "training": {"delta": 1.0} if kind == "huber" else {}}  # away from a corner of J
    first = solved(live, data, kind, **rest)
    second = solved(live, inline(y, weights=WEIGHT, **offset) | {"features": ["a", "b", "c"]}, kind, **rest)
    for part in ("hyperparameters", "selection", "test", "model", "counts", "certificates"):
        assert first[part] == second[part], part


def test_classes_of_a_dataset(live: Api, table: str) -> None:
    data = {"dataset_id": table, "target": "grade", "features": ["a", "b", "c"]}
    spec = {"data": data, "training": {"kind": "multinomial", "penalty": {"kind": "per_class"}}}
    validation = live.post("/v1/jobs?validate_only=true", json=spec).json()
    assert validation["spec"]["data"]["classes"] == ["1", "2", "3"]
    assert validation["names"] == ["penalty[1]", "penalty[2]", "penalty[3]"]
    assert (validation["spec"]["selection"]["loss"], validation["method"]["solver"]) == ("log_loss", "newton_cholesky")
    job = live.ended(live.created(spec | {"selection": {"kind": "stratified_k_fold"}})["id"])
    assert job["status"] == "succeeded", job
    assert live.get(f"/v1/jobs/{job['id']}/steps?names=true").json()["names"] == validation["names"]
    two = {**data, "where": [{"column": "grade", "max": 2}]}  # of the three classes, those in the range
    job = live.ended(live.created({"data": two, "training": {"kind": "logistic"}})["id"])
    assert job["status"] == "succeeded", job
    assert live.result(job["id"])["model"]["classes"] == ["1", "2"]


@pytest.mark.parametrize(
    ("kind", "target", "pointer", "code"),
    [
        ("logistic", "three", "/data/target", "too_many_classes"),
        ("multinomial", "noisy", "/data/target", "too_many_classes"),
        ("huber", "label", "/data/target", "not_a_number"),
    ],
)
def test_columns_that_are_no_target(live: Api, table: str, kind: str, target: str, pointer: str, code: str) -> None:
    data = {"dataset_id": table, "target": target, "features": ["a", "b", "c"]}
    assert faults(live.create({"data": data, "training": {"kind": kind}})) == [(pointer, code)]


@pytest.mark.parametrize(
    ("kind", "data", "selection", "words"),
    [
        ("poisson", {"target": "noisy"}, FOLDS, "the Poisson loss takes counts"),
        ("gamma", {"target": "noisy"}, FOLDS, "the gamma loss takes positive targets"),
        (
            "logistic",
            {"target": "label", "where": [{"column": "a", "max": FEW_YES}]},
            FOLDS,
            "Class 'yes' of the target has 1 row",
        ),
        ("multinomial", {"target": "grade"}, {"kind": "walk_forward", "initial": 2}, "use stratified_k_fold"),
    ],
)
def test_what_only_the_values_show(live: Api, table: str, kind: str, data: Any, selection: Any, words: str) -> None:
    document = {"dataset_id": table, "features": ["a", "b", "c"], **data}
    job = live.ended(live.created({"data": document, "training": {"kind": kind}, "selection": selection})["id"])
    assert (job["status"], job["attempt"], job["error"]["code"]) == ("failed", 1, "data-do-not-fit")
    assert words in job["error"]["detail"]


def test_separated_classes_are_told(live: Api) -> None:
    y = np.where(X[:, 0] > 0, "yes", "no")
    apart = {**inline(y), "x": (X + np.sign(X[:, :1]) * [3.0, 0.0, 0.0]).tolist()}
    job = live.ended(live.created({"data": apart, "training": {"kind": "logistic"}})["id"])
    assert job["status"] == "succeeded", job
    result = live.result(job["id"])
    assert result["hyperparameters"][0]["at_bound"] == "lower"
    assert any(message.startswith("The classes are separated") for message in result["messages"])
    assert result["selection"]["measures"] == {"error_rate": 0.0, "auc": 1.0, "f1": 1.0}


def test_a_column_of_zeros_is_told_and_changes_nothing(live: Api) -> None:
    zero = {**inline(COUNT), "x": np.column_stack([X, np.zeros(N)]).tolist()}
    result, plain = (solved(live, data, "poisson") for data in (zero, inline(COUNT)))
    assert result["messages"][0] == "Feature 'x3' is constant on the rows used; its penalty has no effect."
    assert_allclose(linear(result), np.append(linear(plain), 0.0), atol=1e-9)


@pytest.mark.parametrize("kind", ["approximate_leave_one_out", "laplace_evidence"])
def test_criteria_of_one_fit(live: Api, kind: str) -> None:
    spec = {"data": inline(LABEL), "training": {"kind": "logistic", "penalty": {"kind": "per_feature"}}}
    job = live.ended(live.created({**spec, "selection": {"kind": kind}})["id"])
    result = live.result(job["id"])
    assert result["stop_reason"] in {"converged", "at_bounds"}
    assert result["method"]["outer"] == "lbfgs"
    assert result["certificates"]["finite_difference_error"] < 1e-7
    newton = live.create({**spec, "selection": {"kind": kind}, "outer": {"kind": "newton"}})
    assert faults(newton) == [("/outer/kind", "does_not_fit")]
    ridge = live.create({"data": inline(NOISY), "training": {"kind": "ridge"}, "selection": {"kind": kind}})
    assert faults(ridge) == [("/selection/kind", "does_not_fit")]


@pytest.mark.parametrize("outer", ["inexact", "hoag"])
def test_inexact_steps_tell_how_inexact_they_are(live: Api, outer: str) -> None:
    training = {"kind": "logistic", "solver": "newton_cg"}
    exact = solved(live, inline(LABEL), "logistic", training={"standardize": True})
    spec = {"data": inline(LABEL), "selection": FOLDS, "training": {**PLAIN, **training, "standardize": True}}
    settings = {"kind": outer, "tolerance": 1e-4, "max_iterations": 500}
    job = live.ended(live.created({**spec, "outer": settings})["id"])
    result, steps = live.result(job["id"]), live.steps(job["id"])
    assert result["stop_reason"] in {"converged", "at_bounds"}
    assert result["selection"]["value"] == pytest.approx(exact["selection"]["value"], rel=1e-5)
    errors = [step["gradient_error"] for step in steps]
    assert any(error is None or error > 0 for error in errors)
    if outer == "inexact":
        assert all(error is not None for error in errors)
