"""Puts the additions into the unions that are the registries, before anything reads these.

Each addition is a file of its own and the lines of its unions here. It has to be called before the rooms that know the
wire are imported (`worker.contract`, `service`, `worker.main`), which read the unions when they are.
"""

from __future__ import annotations

import sys
from typing import Any

from tests.product.additions.aic import Aic
from tests.product.additions.backtracking import Backtracking
from tests.product.additions.cauchy import Cauchy
from tests.product.additions.elastic_net import ElasticNet
from tests.product.additions.log_cosh import LogCosh
from tests.product.additions.negative_binomial import NegativeBinomialRegression
from worker.core import kernels, losses, outer, selection, training

ADDITIONS: dict[str, tuple[str, Any]] = {  # the family of each, and its class
    "cauchy": ("kernel", Cauchy),
    "log_cosh": ("loss", LogCosh),
    "backtracking": ("outer", Backtracking),
    "negative_binomial": ("training", NegativeBinomialRegression),
    "elastic_net": ("training", ElasticNet),
    "aic": ("selection", Aic),
}
UNIONS: dict[str, tuple[Any, tuple[str, ...]]] = {  # of each addition, where they are and how they are called
    "cauchy": (kernels, ("Simple", "Kernel")),
    "log_cosh": (losses, ("Score",)),
    "backtracking": (outer, ("ConcreteOuter", "Outer")),
    "negative_binomial": (training, ("LinearTraining", "TableTraining", "Training")),
    "elastic_net": (training, ("TableTraining", "Training")),
    "aic": (selection, ("TableSelection", "Selection")),
}


def install() -> None:
    """Add a member to each union, in every module that has it already."""
    early = [name for name in sys.modules if name.startswith(("worker.contract", "service"))]
    assert not early, f"{early[0]} has read the unions already"
    for kind, (_, member) in ADDITIONS.items():
        package, names = UNIONS[kind]
        for name in names:
            _replace(name, getattr(package, name), member)


def _replace(name: str, union: Any, member: Any) -> None:
    for module in [module for path, module in sys.modules.items() if path.startswith("worker.core")]:
        if getattr(module, name, None) is union:
            setattr(module, name, union | member)
