"""Predictions of the model that a job has fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError

from service.auth import require_key
from service.parameters import Route
from service.problems import (
    Busy,
    InvalidRequest,
    NoModel,
    NotFound,
    ResultNotReady,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
    documented,
)
from service.requests import CONTENT_ENCODING, json_body
from service.routes.jobs import ended_job, require_id
from service.threads import go_on
from worker import store
from worker.contract.description import row_layout
from worker.contract.faults import MOST, Fault, crowded, schema_faults
from worker.contract.prediction import (
    Predicted,
    PredictionRequest,
    Predictions,
    RowLayout,
    RowModel,
    Rows,
    fitted_model,
    kernels_of,
    outputs_of,
    predict,
    rows_of,
)
from worker.contract.result import QuadraticModel
from worker.core.records import Array
from worker.store import JobRecord

MAX_ROWS = 100_000
MAX_OUTPUTS = 1_000_000  # rows times classes
MAX_FEATURES = 200_000  # of a model: more make it an object of 100 MB
MAX_KERNELS = 10_000_000  # rows times support rows: some tenths of a second

router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    route_class=Route,
    dependencies=[Depends(require_key), Depends(require_id)],
)

BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionRequest"}}},
    },
    "parameters": [CONTENT_ENCODING],
}


@router.post(
    "/{job_id}/predictions",
    summary="Predict rows with the fitted model",
    response_model=Predictions,
    responses=documented(NotFound, ResultNotReady, NoModel, TooLarge, UnsupportedMediaType, InvalidRequest, Busy),
    openapi_extra=BODY,
)
async def predict_rows(request: Request, job_id: str) -> Response:
    """Rows in, predictions out; nothing is kept. The model of a partial result predicts, too."""
    body = await json_body(request)
    record = await ended_job(request, job_id)
    document = await store.arun(request.app.state.redis, store.result(job_id))
    spec = await store.arun(request.app.state.redis, store.stored_spec(job_id)) or record.spec
    predictions = request.app.state.crew.predictions
    content = await predictions.run(_answer, record, spec, document, body, caller=request)
    return Response(content, media_type="application/json")


def _answer(record: JobRecord, spec: bytes, document: bytes | None, body: bytes) -> bytes:
    """The reply. Raises a Problem."""
    layout = _layout(spec)
    if document is not None and len(layout.features) > MAX_FEATURES:
        told = (
            f"Rows of {MAX_FEATURES} features are the longest that are predicted, and these have {len(layout.features)}"
        )
        raise TooLarge(f"{told}; multiply them by the coefficients in the result.")
    model = _model(record, document)
    go_on()
    asked = _parse(body)
    go_on()
    if len(asked.x) > MAX_ROWS or len(asked.x) * outputs_of(model) > MAX_OUTPUTS:
        most = f"{MAX_ROWS} rows, and {MAX_OUTPUTS} rows times classes"
        raise TooLarge(f"One request may have {most}; send the rows in several.")
    if len(asked.x) * kernels_of(model) > MAX_KERNELS:
        most = f"{MAX_KERNELS // kernels_of(model)} rows for a model with {kernels_of(model)} support rows"
        raise TooLarge(f"One request may have {most}; send the rows in several.")
    rows = rows_of(asked, layout, model.fills)
    if not isinstance(rows, Rows):
        raise InvalidRequest("The rows do not fit the model.", errors=rows)
    predicted = predict(model, rows, go_on)
    if (overflows := predicted.overflows()).size:
        told = "The prediction of this row overflows; look at the magnitudes of its values."
        errors = [Fault(f"/x/{i}", "overflow", told) for i in overflows[:MOST]]
        raise InvalidRequest("Rows have no finite prediction.", errors=errors)
    return orjson.dumps({"job_id": record.id, "rows": len(rows.X), **_view(predicted)})


def _layout(spec: bytes) -> RowLayout:
    try:
        return row_layout(spec)
    except ValidationError:  # submitted by a newer version, while this process has not been replaced yet
        raise Unavailable("A newer version of the service has to answer this.", headers={"Retry-After": "5"}) from None


def _model(record: JobRecord, document: bytes | None) -> RowModel:
    try:
        model = None if document is None else fitted_model(document)
    except ValidationError:  # fitted by a newer version, while this process has not been replaced yet
        raise Unavailable("A newer version of the service has to answer this.", headers={"Retry-After": "5"}) from None
    if model is None:
        raise NoModel(f"The job is {record.status} and has no fitted model; its result or its `error` says why.")
    if isinstance(model, QuadraticModel):
        raise NoModel("`quadratic` has parameters and knows no rows; read `model.theta` in the result.")
    return model


def _parse(body: bytes) -> PredictionRequest:
    if fault := crowded(body):
        raise InvalidRequest("The request is not valid.", errors=[fault])
    try:
        return PredictionRequest.model_validate_json(body)
    except ValidationError as error:
        errors = schema_faults(error, body, PredictionRequest)
        raise InvalidRequest("The request is not valid.", errors=errors) from None


def _view(predicted: Predicted) -> dict[str, Any]:
    """The fields of `Predictions` that depend on the rows."""

    def by_class(columns: Array) -> dict[str, list[float]]:
        return dict(zip(predicted.classes, columns.T.tolist(), strict=True))

    several = predicted.eta.ndim > 1
    answers = predicted.mean if predicted.labels is None else np.array(predicted.classes, object)[predicted.labels]
    assert answers is not None
    return {
        "predictor": by_class(predicted.eta) if several else predicted.eta.tolist(),
        "predictions": answers.tolist(),
        "probabilities": None if predicted.probabilities is None else by_class(predicted.probabilities),
    }
