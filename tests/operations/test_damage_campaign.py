"""The campaign of damaged datasets, shorter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.damage import campaign


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_damage_becomes_a_number(tmp_path: Path):
    outcomes = campaign(tmp_path, manifests=20, files=20, seed=11)
    assert sum(outcomes.values()) == 40
    assert [what for what in outcomes if "WRONG" in what] == []
    assert sum(count for what, count in outcomes.items() if "refused" in what) > 20
