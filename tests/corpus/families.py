"""Cases of members of families with each other, read off the unions: a new member gets its cases by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from service.catalog import FAMILIES
from tests.corpus.parts import (
    ITERATIVE,
    LINEAR,
    MACHINES,
    TABLE,
    TRAININGS,
    Case,
    case,
    closed_forms,
    data,
    form,
    kernel,
    kinds,
    outer,
    penalty,
    selection,
    widths,
)
from tests.corpus.tables import ORDER
from worker.core.family import kind_of, members

WEIGHTED = (*ORDER, "source")
KINDS = {name: kinds(family) for name, family in FAMILIES.items()}


def grid() -> Iterator[Case]:
    """Every training criterion with every selection criterion and every outer optimizer."""
    for kind in TRAININGS:
        for selected in KINDS["selection"]:
            for method in KINDS["outer"]:
                yield case(f"grid/{kind}/{selected}/{method}", kind, selected, outer=outer(method))


def hypergradients() -> Iterator[Case]:
    """Every training criterion with every selection criterion and every hypergradient, but the one of the grid."""
    for kind in TRAININGS:
        for selected in KINDS["selection"]:
            for method in KINDS["hypergradient"]:
                if method != "auto":
                    name = f"hypergradient/{kind}/{selected}/{method}"
                    yield case(name, kind, selected, hypergradient={"kind": method})


def penalties() -> Iterator[Case]:
    """Every penalty with every linear training criterion, refitted and from one fit; every form by itself."""
    for kind in LINEAR:
        for selected in ("k_fold", *closed_forms(kind)):
            for made in KINDS["penalty"]:
                yield case(f"penalty/{kind}/{selected}/{made}", kind, selected, training={"penalty": penalty(made)})
    for kind, selected in (("ridge", "k_fold"), ("ridge", "evidence"), ("logistic", "laplace_evidence")):
        for made in KINDS["form"]:
            forms = [form(made), {"kind": "identity", "name": "rest", "features": ["a"]}]
            settings = {"penalty": {"kind": "quadratic_forms", "forms": forms}}
            yield case(f"form/{kind}/{selected}/{made}", kind, selected, training=settings)


def example_weights() -> Iterator[Case]:
    """Tuned example weights with every linear training criterion, refitted and from one fit."""
    for kind in LINEAR:
        for selected in ("k_fold", "walk_forward", *closed_forms(kind)):
            for made in KINDS["weights"]:
                name, parts = f"weights/{kind}/{selected}/{made}", {"weights": {"kind": made}}
                yield case(name, kind, selected, training=parts, data=data(kind, roles=WEIGHTED))


def losses() -> Iterator[Case]:
    """Every selection loss with every training criterion, refitted and from one fit."""
    for kind in TABLE:
        for loss in KINDS["loss"]:
            chosen = "stratified_k_fold" if TRAININGS[kind].classifies else "k_fold"
            yield case(f"loss/{kind}/{chosen}/{loss}", kind, selection(chosen, loss=loss))
    for kind in (*ITERATIVE, "ridge", "kernel_ridge"):
        one = "approximate_leave_one_out" if kind in ITERATIVE else "leave_one_out"
        for loss in KINDS["loss"]:
            yield case(f"loss/{kind}/{one}/{loss}", kind, selection(one, loss=loss))


def kernels() -> Iterator[Case]:
    """Every kernel with every kernel machine, exactly and with landmarks; every kernel with all kinds of widths."""
    few = {"count": 10, "seed": 3}
    for kind in MACHINES:
        for made in KINDS["kernel"]:
            for selected in ("k_fold", *closed_forms(kind)):
                yield case(f"kernel/{kind}/{selected}/{made}", kind, selected, training={"kernel": kernel(made)})
            settings = {"kernel": kernel(made), "landmarks": few}
            yield case(f"kernel/{kind}/landmarks/{made}", kind, training=settings)
    with_widths = [
        member for member in members(FAMILIES["kernel"]) if "widths" in {field.name for field in fields(member)}
    ]
    for made in map(kind_of, with_widths):
        for wide in KINDS["widths"]:
            of = {"features": None, "widths": widths(wide)}
            yield case(f"widths/{made}/{wide}", "kernel_ridge", "evidence", training={"kernel": kernel(made, **of)})
