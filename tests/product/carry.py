"""A request on the way of a real job, in this process: the functions that API, worker and predictions are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from service import fitting
from service.problems import InvalidRequest
from service.settings import Settings
from tests.product.naive import predictors
from worker import checkpoint
from worker.contract.columns import Selected, select
from worker.contract.data import DatasetData
from worker.contract.dataset import Dataset
from worker.contract.description import hyperparameter_names, row_layout
from worker.contract.faults import Fault
from worker.contract.prediction import Predicted, PredictionRequest, Rows, fitted_model, predict, rows_of
from worker.contract.result import QuadraticModel
from worker.contract.spec_faults import faults
from worker.core.records import State, Step
from worker.core.search.plan import Prepared
from worker.core.search.procedure import carry_out
from worker.datasets import MANIFEST, storage_from_environment
from worker.load import Task, load
from worker.report import progress, result, step_record
from worker.store import Claim, Status

SETTINGS = Settings()
CLAIM = Claim("", 1, False, b"", b"", None, 0, 0.0, 0.0, "", 0.0, 0.0, "", "")
NEW_ROWS = 7
Part = dict[str, Any]


def submitted(request: Part) -> fitting.Checked | list[Fault]:
    """What the API makes of a request: a job, or the faults of its 422. All else that is raised is an error of ours."""
    body = json.dumps(request).encode()
    try:
        spec = fitting.parsed(body)
        if isinstance(spec.data, DatasetData):
            manifest = storage_from_environment().read(spec.data.dataset_id, MANIFEST)
            assert manifest is not None
            return fitting.of_dataset(spec, manifest, SETTINGS)
        return fitting.of_own_data(spec, body, SETTINGS)
    except InvalidRequest as problem:
        return list(problem.errors)


def refused(request: Part) -> bool:
    """Whether a request has faults. One that makes the checks fail has none, so that it becomes a case."""
    body = json.dumps(request).encode()
    try:
        spec = fitting.parsed(body)
        if not isinstance(spec.data, DatasetData):
            return bool(faults(spec))
        manifest = storage_from_environment().read(spec.data.dataset_id, MANIFEST)
        selected = select(spec.data, Dataset.model_validate_json(manifest or b""), spec.training)
        return not isinstance(selected, Selected) or bool(faults(spec, selected))
    except InvalidRequest:
        return True
    except Exception:  # noqa: BLE001 - whatever it is, the case finds it
        return False


def check_faults(request: Part, found: list[Fault]) -> None:
    """A refusal names places of the request, or of what it leaves out, and says something of each."""
    assert found
    for fault in found:
        *parents, last = fault.pointer.split("/")[1:]
        here: Any = request
        for part in parents:
            here = here[int(part)] if isinstance(here, list) else here[part]
        assert isinstance(here, dict) or int(last) < len(here), fault
        assert fault.code, fault
        assert fault.detail.endswith("."), fault


def carry(checked: fitting.Checked) -> None:
    """Validate, run, report and predict. Raises whatever goes wrong, AssertionError for a job that fails."""
    view = json.loads(fitting.validated(checked))
    with np.errstate(all="ignore"):  # as a worker does: overflow is an outcome
        task = load(checked.stored, checked.data)
        steps = list(carry_out(task.prepared))
        document = _reported(task, steps)
    names = list(hyperparameter_names(checked.stored))
    assert [one["name"] for one in document["hyperparameters"]] == names
    assert (view["hyperparameters"], view["names"]) == (len(names), names[:1000])
    methods = ("hypergradient", "outer")  # which matrix is factored may depend on the values
    assert [document["method"][name] for name in methods] == [view["method"][name] for name in methods]
    assert document["model"] is not None, document["messages"]
    assert math.isfinite(document["selection"]["value"])
    assert (document["test"] is not None) == bool(task.prepared.plan.test_fraction)
    assert (document["nested"] is not None) == (task.prepared.plan.nested is not None)
    check_worth(task.prepared, document)
    check_predictions(task.prepared, checked.stored, document)


def check_worth(prepared: Prepared, document: Part) -> None:
    """What is told of hyper-priors and of the shared value fits together, and what is missing has a note."""
    box, codes = prepared.objective.hyperparameters, {note["code"] for note in document["notes"]}
    selection, baseline, spread = document["selection"], document["baseline"], document["spread"]
    wanted = {family.spread for family in box.families} - {None}
    assert (spread is not None) == bool(wanted)
    assert ("baseline_unavailable" in codes) == (baseline is None and len(box.names) > 1)
    if baseline is not None:
        assert [one["name"] for one in baseline["hyperparameters"]] == list(box.names)
        assert_allclose(baseline["difference"], selection["value"] - baseline["value"], rtol=1e-12, atol=1e-15)
    if selection["corrected_value"] is None:
        assert selection["optimism"] is None
    else:
        assert_allclose(selection["optimism"], selection["corrected_value"] - selection["value"], atol=1e-12)
    if spread is not None and spread["by"] is not None:
        _check_path(spread, selection, baseline, wanted)


def _check_path(spread: Part, selection: Part, baseline: Part, wanted: set[Any]) -> None:
    """The chosen spread and zero are on the path, with the values of the result and of the shared value."""
    path = {point["spread"]: point for point in spread["path"]}
    assert list(path) == sorted(path)
    assert len(path) == len(spread["path"])
    assert path[0.0]["value"] == baseline["value"]
    assert path[spread["chosen"]]["value"] >= selection["value"]  # further starts may be better
    assert (spread["by"] == "given") == ("auto" not in wanted)
    if spread["by"] == "jackknife":
        assert None not in {point["corrected_value"] for point in spread["path"]}
    if spread["by"] == "given":
        assert spread["chosen"] in wanted


def _reported(task: Task, steps: list[Step]) -> Part:
    """The result document of a job, whose steps can be stored, shown and gone on from."""
    names = task.prepared.objective.hyperparameters
    saved = [step for step in steps if step.state is not None]
    for number, step in enumerate(saved, start=1):
        step_record(names, step, number)
    assert saved
    assert saved[-1].state is not None
    assert _same(checkpoint.unpack(checkpoint.pack(saved[-1].state)), saved[-1].state)
    last = steps[-1]
    json.loads(progress(last, 0.0))
    assert last.ended is not None
    assert not last.ended.is_failure, last.ended
    return dict(json.loads(result(CLAIM, task.prepared, last, Status.SUCCEEDED, last.ended, 0.0, task.made)))


def _same(one: State, other: State) -> bool:
    return one.search.keys() == other.search.keys() and len(one.starts) == len(other.starts)


def check_predictions(prepared: Prepared, stored: bytes, document: Part) -> None:
    """New rows are predicted as the document of the model and the link of the training loss say."""
    model = fitted_model(json.dumps(document).encode())
    assert model is not None
    if isinstance(model, QuadraticModel):
        assert len(model.theta) > 0
        assert np.isfinite(model.theta).all()
        return
    layout = row_layout(stored)
    asked = new_rows(layout.features, offset=layout.offset)
    rows = rows_of(PredictionRequest.model_validate_json(json.dumps(asked)), layout, model.fills)
    assert isinstance(rows, Rows), rows
    predicted = predict(model, rows)
    each = [dict(zip(layout.features, row, strict=True)) for row in asked["x"]]
    eta, size = predictors(document["model"], each, asked.get("offset", [0.0] * NEW_ROWS))
    assert_allclose(predicted.eta.reshape(NEW_ROWS, -1), eta, rtol=1e-9, atol=1e-12 + 1e-11 * size)
    _check_means(prepared, document["model"], predicted, predicted.eta.reshape(NEW_ROWS, -1))


def new_rows(features: Any, *, offset: bool) -> Part:
    """Rows to predict, with offsets if the model takes them."""
    rng = np.random.default_rng(9)
    x = np.round(rng.normal(size=(NEW_ROWS, len(features))) * 1.5 + 0.5, 3)
    return {"x": x.tolist()} | ({"offset": [0.25 * i for i in range(NEW_ROWS)]} if offset else {})


def _check_means(prepared: Prepared, model: Part, predicted: Predicted, eta: Any) -> None:
    """Means, classes and probabilities are those of the link that the training loss states."""
    of_rows = prepared.plan.training.parts.rows
    assert of_rows is not None
    link = of_rows.row_loss(prepared.problem).link
    mean = np.asarray(link.mean(eta))
    if not prepared.problem.classes:
        assert predicted.mean is not None
        assert_array_equal(predicted.mean, mean[:, 0])
        return
    assert predicted.classes == prepared.problem.classes
    assert predicted.labels is not None
    assert_array_equal(predicted.labels, eta.argmax(1) if eta.shape[1] > 1 else eta[:, 0] > 0)
    if (line := model.get("calibration")) is not None:
        mean = 1.0 / (1.0 + np.exp(-(line["slope"] * eta + line["offset"])))
    elif link.kind == "identity":
        assert predicted.probabilities is None
        return
    assert predicted.probabilities is not None
    assert_allclose(predicted.probabilities[:, -mean.shape[1] :], mean, rtol=1e-12)
    assert_allclose(predicted.probabilities.sum(1), 1.0, rtol=1e-12)


def error_of(run: Callable[[], None]) -> str | None:
    """What is raised and where, in a line; None if nothing is."""
    try:
        run()
    except Exception as error:  # noqa: BLE001 - whatever it is
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        name = "" if place is None else f"{place.tb_frame.f_code.co_filename.rpartition('/')[2]}:{place.tb_lineno}"
        return f"{type(error).__name__} at {name}: {' '.join(str(error).split())[:300]}"
    return None
