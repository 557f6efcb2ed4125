"""The spread that outer folds choose, over HTTP."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contract.specs import document
from tests.service.api import Api, faults

RNG = np.random.default_rng(4)
X = RNG.normal(size=(40, 4))
DATA = {"x": X.tolist(), "y": (X @ [2.0, 0.0, 0.1, 0.0] + RNG.normal(size=40)).tolist()}
SPEC = document(data=DATA, training__penalty={"kind": "per_feature"}, nested={"folds": 3})


def test_outer_folds_choose_the_spread(live: Api) -> None:
    by_rows, by_folds = (
        live.result(live.created({**SPEC, "spread_by": by}, Prefer="wait=60")["id"]) for by in ("auto", "nested")
    )
    assert by_rows["spread"]["by"] == "jackknife"
    spread, codes = by_folds["spread"], [note["code"] for note in by_folds["notes"]]
    assert spread["by"] == "nested"
    assert spread["path"] == by_rows["spread"]["path"]
    (at,) = [point for point in spread["path"] if point["spread"] == spread["chosen"]]
    assert by_folds["selection"]["value"] == at["value"]
    assert by_folds["selection"]["corrected_value"] == at["corrected_value"]
    (note,) = [note for note in by_folds["notes"] if note["code"] == "spread_chosen_by_nested"]
    assert note["severity"] == "info"
    assert note["text"] in by_folds["messages"]
    assert "spread_chosen_by_nested" not in [note["code"] for note in by_rows["notes"]]
    assert "spread_not_chosen_by_nested" not in codes
    nested = by_folds["nested"]
    rows = [fold["rows"] for fold in nested["folds"]]
    assert nested["value"] == pytest.approx(np.average([fold["value"] for fold in nested["folds"]], weights=rows))
    promised = np.average([fold["selection_value"] for fold in nested["folds"]], weights=rows)
    assert nested["optimism"] == pytest.approx(nested["value"] - promised)
    assert nested["standard_error"] > 0
    assert by_folds["fingerprint"] != by_rows["fingerprint"]


def test_it_needs_outer_folds(live: Api) -> None:
    reply = live.create({**SPEC, "nested": None, "spread_by": "nested"})
    assert reply.status_code == 422
    assert [pointer for pointer, _ in faults(reply)] == ["/spread_by"]
