"""All cases of the corpus, each by its name."""

from __future__ import annotations

from dataclasses import replace

from tests.corpus import families, refused, settings
from tests.corpus.parts import Case
from tests.plain import plain

SECTIONS = (
    families.grid,
    families.hypergradients,
    families.penalties,
    families.example_weights,
    families.losses,
    families.kernels,
    settings.columns,
    settings.splines,
    settings.rows,
    settings.splits,
    settings.procedures,
    settings.spreads,
    settings.solvers,
    settings.datasets,
    settings.own_criteria,
    settings.failures,
    refused.malformed,
    refused.tables,
    refused.plans,
    refused.files,
    refused.criteria,
)


def cases(only: str = "", *, plainly: bool = False) -> list[Case]:
    """Those whose name contains a text, in the order of their names. `plainly`: without hyper-priors by default."""
    made = [case for section in SECTIONS for case in section()]
    if plainly:
        made = [replace(case, request=plain(case.request)) for case in made]
    names = {case.name for case in made}
    assert len(names) == len(made), "two cases have one name"
    return sorted((case for case in made if only in case.name), key=lambda case: case.name)
