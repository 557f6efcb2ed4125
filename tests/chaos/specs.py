"""The jobs: a fixed set of specs from a few milliseconds to several seconds of work, drawn by weight."""

import json
import random
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Template:
    name: str
    weight: float
    spec: dict[str, Any]

    def body(self, label: str) -> bytes:
        """The request, with a label that no other request has."""
        return json.dumps({**self.spec, "labels": {"chaos": label, "template": self.name}}).encode()


def _table(seed: int, n: int, p: int) -> dict[str, Any]:
    random_state = np.random.default_rng(seed)
    x = random_state.normal(size=(n, p)).round(3)
    truth = random_state.normal(size=p) * (random_state.random(p) < 0.4)
    return {"x": x.tolist(), "y": (x @ truth + 2 * random_state.normal(size=n)).round(3).tolist()}


def _template(name: str, weight: float, size: tuple[int, int], **parts: Any) -> Template:
    spec = {
        "data": _table(len(name) + size[0], *size),
        "training": {"kind": "ridge", "penalty": {"kind": "per_feature"}},
        "limits": {"seconds": 7200},  # frozen time counts as running time
        **parts,
    }
    return Template(name, weight, spec)


def _long(kind: str, starts: int, most: int = 1000) -> dict[str, Any]:
    return {"kind": kind, "tolerance": 1e-10, "max_iterations": most, "starts": starts}


def templates() -> list[Template]:
    """All of them; the weights make a third of the jobs end within 0.1 s and a third take more than 1 s."""
    return [
        _template("newton-3", 2, (30, 3), outer={"kind": "newton"}),
        _template("lbfgs-8", 2, (60, 8), outer={"kind": "lbfgs"}),
        _template("newton-40", 1, (200, 40), outer={"kind": "newton"}, selection={"kind": "holdout", "fraction": 0.3}),
        _template("backprop-20", 1, (80, 20), outer={"kind": "lbfgs"}, hypergradient={"kind": "cholesky_backprop"}),
        _template("lbfgs-8-starts-3", 2, (60, 8), outer=_long("lbfgs", 3)),
        _template("newton-40-starts-3", 2, (200, 40), outer=_long("newton", 3), test_fraction=0.2),
        _template("lbfgs-40-starts-2", 2, (200, 40), outer=_long("lbfgs", 2, 400)),  # J has no more digits after that
        _template("newton-80-starts-3", 2, (200, 80), outer=_long("newton", 3), seed=7),
        _template("lbfgs-60-long", 1, (250, 60), outer=_long("lbfgs", 2)),
        _template("newton-120-starts-3", 1, (250, 120), outer=_long("newton", 3)),
    ]


def draw(chance: random.Random, among: list[Template]) -> Template:
    return chance.choices(among, [template.weight for template in among])[0]
