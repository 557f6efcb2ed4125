"""P-splines against bases written out by hand, plain formulas and the document that a caller receives."""

from __future__ import annotations

import dataclasses

import numpy as np
import orjson
import pytest
from numpy.testing import assert_allclose
from scipy.interpolate import BSpline
from scipy.sparse import csr_array

from tests.oracles import differences
from worker.contract.description import describe, hyperparameter_names, work
from worker.contract.inline import encode_data
from worker.contract.spec import JobSpec
from worker.contract.spec_faults import faults
from worker.core.hypergradient import CholeskyBackprop, Implicit
from worker.core.outer import Newton
from worker.core.penalties import Identity, Matrix, PerFeature, PerGroup, QuadraticForms, Shared
from worker.core.penalties.splines import Spline, SplineError
from worker.core.rows.problem import Imputation, Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import Evidence, GeneralizedCV, Holdout, KFold, LeaveOneOut, Reml, WalkForward
from worker.core.training import Ridge
from worker.core.verdict.conclude import conclude
from worker.core.weights import SigmoidTime
from worker.report import result
from worker.store import Claim, Status

N = 90
SPLINES = (
    Spline(feature="b", basis=9),
    Spline(feature="d", basis=7, degree=2, order=1, cyclic=True, lower=-1.0, upper=1.0),
)
SELECTIONS = {
    "k_fold": KFold(folds=3),
    "holdout": Holdout(),
    "walk_forward": WalkForward(initial=60, horizon=7),
    "leave_one_out": LeaveOneOut(),
    "generalized_cv": GeneralizedCV(),
    "evidence": Evidence(),
    "reml": Reml(),
}


def table() -> Problem:
    rng = np.random.default_rng(1)
    X = rng.uniform(-1, 1, size=(N, 4))
    y = np.sin(3 * X[:, 1]) + np.cos(np.pi * X[:, 3]) + X[:, 0] + 0.3 * rng.normal(size=N) + 2
    return Problem(X, y, ("a", "b", "c", "d"), time=np.arange(N, dtype=float))


def expanded(problem, training):
    return training.expanded(problem, np.arange(len(problem.y)))


def objective_of(problem, training, selection, method=None):
    partition = selection.partition(np.arange(N), N, problem)
    return selection.objective(problem, partition, training, method or Implicit())


def basis_by_hand(x, spline):
    """All B-splines of one column, from their definition as basis elements."""
    low = x.min() if spline.lower is None else spline.lower
    high = x.max() if spline.upper is None else spline.upper
    m, k = spline.basis, spline.degree
    count = m + k if spline.cyclic else m
    step = (high - low) / (count - k)
    t = low + step * np.arange(-k, count + 1)
    B = np.array([BSpline(t, e, k)(x) for e in np.eye(count)]).T
    if spline.cyclic:
        B[:, :k] += B[:, m:]
    return B[:, :m]


def differences_of(m, spline):
    D = np.eye(m)
    for _ in range(spline.order):
        D = np.roll(D, -1, axis=0) - D if spline.cyclic else np.diff(D, axis=0)
    return D.T @ D


def dense(problem, scale):
    """The same problem with its bases written out, in another orthonormal contrast, and its penalties as forms."""
    columns, forms = [problem.X[:, [0, 2]] / scale], []
    names = ["a", "c"]
    for spline in SPLINES:
        m = spline.basis
        Q = np.linalg.qr(np.hstack([np.ones((m, 1)), np.eye(m)[:, 1:]]))[0][:, 1:]
        x = problem.X[:, problem.features.index(spline.feature)]
        columns.append(basis_by_hand(x, spline) @ Q)
        made = tuple(f"{spline.feature}{i}" for i in range(m - 1))
        S = Q.T @ differences_of(m, spline) @ Q
        forms.append(Matrix(name=spline.feature, features=made, matrix=tuple(map(tuple, (S + S.T) / 2))))
        names += made
    forms = (Identity(name="rest", features=("a", "c")), *forms)
    whole = dataclasses.replace(problem, X=np.hstack(columns), features=tuple(names))
    return whole, QuadraticForms(forms=forms)


@pytest.mark.parametrize("weights", [None, SigmoidTime()], ids=["plain", "weighted"])
@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=list(SELECTIONS))
def test_equals_a_dense_problem_with_its_bases_written_out(selection, weights):
    problem = table()
    training = Ridge(standardize=False, splines=SPLINES, weights=weights)
    whole, forms = dense(problem, 1.0)
    plain = objective_of(whole, Ridge(standardize=False, penalty=forms, weights=weights), selection)
    ours = objective_of(expanded(problem, training), training, selection)
    k = len(ours.hyperparameters.names)
    assert ours.hyperparameters.names[:3] == ("penalty", "penalty[spline(b)]", "penalty[spline(d)]")
    rho = np.random.default_rng(2).normal(size=k) - 2.0
    one, other = ours.evaluate(rho), plain.evaluate(rho)
    assert one.failure is None
    assert_allclose(one.value, other.value, rtol=1e-10)
    assert_allclose(one.gradient, other.gradient, atol=1e-10 * np.abs(other.gradient).max())

    backprop = objective_of(expanded(problem, training), training, selection, CholeskyBackprop())
    scale = max(np.abs(one.gradient).max(), 1e-3 * abs(one.value))
    assert_allclose(backprop.evaluate(rho).gradient, one.gradient, atol=1e-10 * scale)
    assert_allclose(one.gradient, differences(ours.value, rho), atol=1e-7 * scale)
    hessian = ours.hessian(rho)
    numeric = differences(lambda r: ours.evaluate(r).gradient, rho)
    assert_allclose(hessian, numeric, atol=1e-6 * np.abs(hessian).max())


def test_only_the_other_features_are_standardized():
    problem = table()
    training = Ridge(splines=SPLINES)
    whole, forms = dense(problem, problem.X[:, [0, 2]].std(axis=0))
    rho = np.array([-1.0, -3.0, -2.0])
    plain = objective_of(whole, Ridge(standardize=False, penalty=forms), GeneralizedCV())
    assert_allclose(objective_of(expanded(problem, training), training, GeneralizedCV()).value(rho), plain.value(rho))


@pytest.mark.parametrize("cyclic", [False, True])
def test_generalized_cv_of_one_term_is_its_textbook_formula(cyclic):
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 10, size=N)
    y = np.sin(x) + 0.2 * rng.normal(size=N)
    spline = Spline(feature="x", basis=15, cyclic=cyclic)
    training = Ridge(splines=(spline,))
    objective = objective_of(expanded(Problem(x[:, None], y, ("x",)), training), training, GeneralizedCV())
    assert objective.hyperparameters.names == ("penalty[spline(x)]",)
    B = basis_by_hand(x, spline)
    for lam in (1e-4, 1e-2, 1.0):
        A = B @ np.linalg.solve(B.T @ B + N * lam * differences_of(15, spline), B.T)
        expected = N * np.sum((y - A @ y) ** 2) / (N - np.trace(A)) ** 2
        assert_allclose(objective.value(np.log([lam])), expected, rtol=1e-10)


@pytest.mark.parametrize("spline", SPLINES, ids=["open", "cyclic"])
def test_a_term_is_a_scipy_spline(spline):
    basis = spline.over(0, -1.0, 1.0)
    theta = np.random.default_rng(3).normal(size=spline.basis - 1)
    term = BSpline(basis.knots, basis.coefficients(theta), basis.degree)
    x = np.linspace(-1, 1, 201)
    assert basis.range == (-1.0, 1.0)
    assert_allclose(basis(x) @ theta, term(x), atol=1e-13)
    assert_allclose(basis_by_hand(x, spline).sum(axis=1), 1.0)
    outside = np.array([-3.5, -1.25, 1.25, 7.0])
    expected = term((outside + 1) % 2 - 1) if spline.cyclic else term(np.clip(outside, -1, 1))
    assert_allclose(basis(outside) @ theta, expected, atol=1e-13)
    assert np.isclose(term(-1.0), term(1.0)) == spline.cyclic


def test_missing_values_are_filled_before_the_expansion():
    problem, training = table(), Ridge(splines=SPLINES)
    X = problem.X.copy()
    X[::5, 1], X[1::7, 0] = np.nan, np.nan
    selection = KFold(folds=3)
    missing = dataclasses.replace(problem, X=X, imputation=Imputation(np.array([0, 1]), ("mean", "mean"), np.zeros(2)))
    with_spline = expanded(missing, training)
    objective = objective_of(with_spline, training, selection)
    rho = np.array([-2.0, -3.0, -2.0])
    partition = selection.partition(np.arange(N), N)
    errors = []
    for train, validation in partition.splits:
        rows, filled = partition.rows(train), X.copy()
        for j in (0, 1):
            filled[np.isnan(X[:, j]), j] = np.nanmean(X[rows, j])
        split = dataclasses.replace(with_spline, X=filled, imputation=None)
        system = training.refit(split, rows)
        constant, slopes = system.coefficients(system.fit(np.exp(rho)).theta)
        scored = partition.rows(validation)
        errors.append((problem.y[scored] - constant - split.expansion.of(filled)[scored] @ slopes) ** 2)
    assert_allclose(objective.value(rho), np.concatenate(errors).mean(), rtol=1e-10)
    scores = objective.row_scores(with_spline, partition, rho)
    assert_allclose(scores.weights @ scores.losses, objective.value(rho), rtol=1e-10)


def test_other_features_keep_the_penalty_of_the_spec():
    features = table().features
    names = Ridge(penalty=PerFeature(), splines=SPLINES).penalties_of_features(features)[0].names
    assert names == ("penalty[a]", "penalty[c]", "penalty[spline(b)]", "penalty[spline(d)]")
    box, forms = Ridge(penalty=Shared(initial=3.0), splines=SPLINES).penalties_of_features(features)
    assert_allclose(np.exp(box.initial), 3.0)
    assert (forms.k, forms.p) == (3, 2 + 8 + 6)
    with pytest.raises(ValueError, match=r"'b', which the data does not have .features with splines"):
        Ridge(penalty=PerGroup(groups={"g": features}), splines=SPLINES).penalties_of_features(features)


def test_columns_without_a_range_and_sparse_tables_are_refused():
    rows = np.arange(N)
    problem = table()
    X = problem.X.copy()
    X[:, 1] = 4.0
    with pytest.raises(ValueError, match="'b' is constant on the rows used"):
        Ridge(splines=SPLINES).expanded(dataclasses.replace(problem, X=X), rows)
    with pytest.raises(ValueError, match="sparse"):
        Ridge(splines=SPLINES).expanded(dataclasses.replace(problem, X=csr_array(X)), rows)
    with pytest.raises(ValueError, match=r"range of spline.b. is empty"):
        Ridge(splines=(Spline(feature="b", lower=5.0),)).expanded(problem, rows)
    X[:, 1] = 1e16 + 2 * (rows % 2)
    with pytest.raises(ValueError, match="too wide or too narrow for 9 splines"):
        Ridge(splines=SPLINES).expanded(dataclasses.replace(problem, X=X), rows)


def test_the_model_of_the_result_predicts_the_test_rows():
    problem = table()
    document = {
        "data": {"x": problem.X.tolist(), "y": problem.y.tolist(), "features": list(problem.features)},
        "training": {"kind": "ridge", "splines": [{"feature": "b"}, {"feature": "d", "cyclic": True, "basis": 8}]},
        "selection": {"kind": "generalized_cv"},
        "test_fraction": 0.2,
    }
    spec = JobSpec.model_validate_json(orjson.dumps(document))
    assert faults(spec) == []
    data = encode_data(spec.problem())
    stored = orjson.dumps(describe(spec, data))
    task = work(stored, data)
    assert hyperparameter_names(stored) == ("penalty", "penalty[spline(b)]", "penalty[spline(d)]")
    prepared = prepare(task.problem, task.plan)
    *_, last = tune(prepared)
    claim = Claim("", 1, False, b"", b"", None, 0, 0.0, 0.0, "", 0.0, 0.0, "", "")
    made = orjson.loads(result(claim, prepared, last, Status.SUCCEEDED, last.ended, 0.0))
    model = made["model"]
    assert model["kind"] == "additive"
    eta = np.full(N, model["intercept"])
    for item in model["coefficients"]:
        eta += item["value"] * problem.X[:, problem.features.index(item["feature"])]
    for term in model["splines"]:
        x, (low, high) = problem.X[:, problem.features.index(term["feature"])], term["range"]
        x = low + (x - low) % (high - low) if term["cyclic"] else np.clip(x, low, high)
        eta += BSpline(term["knots"], term["coefficients"], term["degree"])(x)
    rows = prepared.test_rows
    assert_allclose(made["test"]["value"], np.mean((problem.y[rows] - eta[rows]) ** 2), rtol=1e-10)
    assert made["test"]["value"] < 0.25 < np.var(problem.y)
    assert [item["feature"] for item in model["coefficients"]] == ["a", "c"]


def spline_problem(x: np.ndarray, **settings: object) -> tuple[Problem, Ridge]:
    y = np.sin(x) + np.random.default_rng(0).normal(size=len(x))
    return Problem(np.column_stack([np.arange(len(x)) % 5 + 0.5, x]), y, ("z", "x")), Ridge(
        splines=(Spline(feature="z"), Spline(feature="x", **settings))
    )


@pytest.mark.parametrize(
    ("x", "settings", "told"),
    [
        (
            np.arange(24) % 2,
            {"order": 3},
            "'x' has 2 distinct values on the rows used, and a spline of order 3",
        ),
        (np.zeros(24), {}, "'x' is constant on the rows used"),
        (np.arange(24) % 3, {"order": 3, "upper": 1.0}, "too close together in the range of spline.x., 0 to 1"),
        (np.arange(24) % 3, {"order": 3, "degree": 1, "lower": -1e3, "upper": 1e3}, "too close together in the range"),
    ],
)
def test_values_that_do_not_determine_a_spline_are_refused(x, settings, told):
    problem, training = spline_problem(x.astype(float), **settings)
    with pytest.raises(SplineError, match=told) as refused:
        training.expanded(problem, np.arange(24))
    assert refused.value.number == 1


@pytest.mark.parametrize(
    ("x", "settings"),
    [
        (np.arange(24) % 2, {"order": 2}), (np.arange(24) % 3, {"order": 3}),
        (np.arange(24) % 2, {"order": 3, "cyclic": True, "lower": 0.0, "upper": 3.0}),
        (np.append(np.nan, np.arange(23) % 3), {"order": 3}), (np.exp(np.arange(24) / 2), {"order": 3}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [3, 10_000])
def test_values_that_do_are_not(x, settings, size, monkeypatch):
    monkeypatch.setattr("worker.core.penalties.splines.CHUNK_VALUES", size)
    problem, training = spline_problem(x.astype(float), **settings)
    assert training.expanded(problem, np.arange(24)).expansion is not None


def test_a_value_far_off_is_named_with_the_remedy():
    x = np.append(np.arange(23) % 7, 1e6).astype(float)
    problem = spline_problem(x)[0]
    messages = {}
    for upper in (None, 6.0):
        job = prepare(
            problem,
            Plan(
                Ridge(splines=(Spline(feature="x", lower=0.0, upper=upper),)), KFold(folds=3), Implicit(),
                Newton(max_iterations=2),
            ),
        )  # fmt: skip
        *_, last = tune(job)
        messages[upper] = " ".join(conclude(job, last.best).messages)
    assert "23 of 24 values of feature 'x' lie in one of 17 intervals" in messages[None]
    assert "give lower and upper" in messages[None]
    assert "lie in one" not in messages[6.0]
