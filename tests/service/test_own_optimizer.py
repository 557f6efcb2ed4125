"""A job with an outer optimizer that the service does not have: what is said of it before and after the search."""

from __future__ import annotations

from typing import Any

import pytest

from service.estimate import estimate, validation_view
from tests.contract.specs import document, parsed, table
from tests.core.gradient_descent import GradientDescent
from worker.contract.spec import JobSpec
from worker.core.search.plan import prepare
from worker.report import reasons


def with_gradient_descent(**settings: Any) -> JobSpec:
    spec = parsed(document(data=table(30, 3), training__penalty={"kind": "shared"}))
    return spec.model_copy(update={"outer": GradientDescent(**settings)})


@pytest.mark.parametrize(
    ("settings", "evaluations"), [({}, 17), ({"starts": 3}, 85), ({"max_iterations": 5}, 6)], ids=str
)
def test_its_typical_evaluations_are_estimated(settings: dict[str, int], evaluations: int) -> None:
    assert estimate(with_gradient_descent(**settings), None).evaluations == evaluations


def test_it_is_validated_and_explained() -> None:
    spec = with_gradient_descent(max_iterations=7)
    assert validation_view(spec, None, {}, "")["method"]["outer"] == "gradient_descent"
    prepared = prepare(spec.problem(), spec.plan())
    assert prepared.outer is spec.outer
    assert not prepared.scans
    assert len(reasons(prepared)) == 1  # of the solver: nothing else was left open
