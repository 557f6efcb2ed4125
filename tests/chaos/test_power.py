"""A few places of an append-only file are damaged; `python -m tests.chaos.power` damages a thousand."""

import pytest

from tests.chaos.power import run


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_power_cuts() -> None:
    outcome = run(places=12, seconds=3.0, seed=1)
    assert outcome.broken == []
    counts = outcome.counts
    assert sum(counts[names] for names in counts if names[0].startswith("tail")) == 12
    assert sum(number for (_, result), number in counts.items() if result.endswith("repaired")) == 12
    assert counts["jobs", "checked"] > 24
