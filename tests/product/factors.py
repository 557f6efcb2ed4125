"""What a request can vary: the members of every family, read off the unions, and settings that matter.

A choice names one level of each factor. The first level of a factor is a plain one, which goes with the others.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from service.catalog import FAMILIES
from tests.corpus.parts import KERNELS, LINEAR, MACHINES, PERIOD, SELECTIONS, TABLE, TRAININGS
from tests.examples import EXAMPLES, csv, inline, libsvm
from tests.plain import ALIKE
from worker.contract.dataset import Format
from worker.core.family import kind_of, members
from worker.core.rows.problem import Problem
from worker.datasets import LocalStorage, add_file

Choice = dict[str, str]
Part = dict[str, Any]
MEMBERS: dict[str, dict[str, Any]] = {
    name: {kind_of(member): member for member in members(family)} for name, family in FAMILIES.items()
}
NONE, SOME = "none", "some"
FORMS: dict[str, Part] = {
    "difference": {"order": 2},
    "matrix": {"features": ["b", "c"], "matrix": [[2.0, -1.0], [-1.0, 1.0]]},
    "banded": {"features": ["b", "c"], "bands": [[2.0, 2.0], [-1.0]]},
}
GROUPS = {"first": ["a", "c"], "second": ["b", "d"]}
FILES = ("file", "missing", "median", "constant", "where")


@dataclass(frozen=True, slots=True)
class Factor:
    """The levels of a factor, and in which choices of the factors before it it has a place."""

    levels: tuple[str, ...]
    applies: Callable[[Choice], bool] = lambda _: True


@functools.cache
def _settings(family: str, kind: str) -> frozenset[str]:
    """The settings of a member of a family whose values are not a fixed text."""
    return frozenset(field.name for field in fields(MEMBERS[family][kind]) if not isinstance(field.default, str))


@functools.cache
def _all_settings(training: str) -> frozenset[str]:
    return frozenset(field.name for field in fields(TRAININGS[training]))


def _has(family: str, setting: str) -> Callable[[Choice], bool]:
    """Whether the chosen member of a family has a setting whose values are not a fixed text."""
    return lambda choice: setting in _settings(family, choice[family])


def _trains(kinds: list[str]) -> Callable[[Choice], bool]:
    return lambda choice: choice["training"] in kinds


def _with(setting: str) -> Callable[[Choice], bool]:
    return lambda choice: setting in _all_settings(choice["training"])


def _has_role(name: str) -> Callable[[Choice], bool]:
    return lambda choice: choice.get("data") not in {None, "sparse"} and getattr(example(choice), name) is not None


def _has_widths(choice: Choice) -> bool:
    return choice["training"] in MACHINES and _has("kernel", "widths")(choice)


def _has_alike(choice: Choice) -> bool:
    return choice.get("penalty") in ALIKE or choice.get("widths") in ALIKE


FACTORS: dict[str, Factor] = {
    "training": Factor(tuple(TRAININGS)),
    "selection": Factor(tuple(sorted(MEMBERS["selection"], key=lambda kind: kind != "k_fold"))),
    "hypergradient": Factor(tuple(MEMBERS["hypergradient"])),
    "outer": Factor(tuple(MEMBERS["outer"])),
    "loss": Factor((NONE, *MEMBERS["loss"]), _has("selection", "loss")),
    "noise": Factor((NONE, SOME), _has("selection", "noise_variance")),
    "penalty": Factor(tuple(MEMBERS["penalty"]), _trains(LINEAR)),
    "form": Factor(tuple(MEMBERS["form"]), lambda choice: choice.get("penalty") == "quadratic_forms"),
    "weights": Factor((NONE, *MEMBERS["weights"]), _trains(LINEAR)),
    "splines": Factor((NONE, "one", "two"), _trains(LINEAR)),
    "kernel": Factor(tuple(MEMBERS["kernel"]), _trains(MACHINES)),
    "widths": Factor(tuple(MEMBERS["widths"]), _has_widths),
    "spread": Factor(("null", "0.5", "auto"), _has_alike),
    "landmarks": Factor((NONE, SOME), _with("landmarks")),
    "hinge": Factor(("squared", "huberized"), _with("hinge")),
    "multipliers": Factor(("log", "linear"), _with("multipliers")),
    "solver": Factor(("auto", "newton_cholesky", "newton_cg"), _with("solver")),
    "class weights": Factor((NONE, "balanced", "named"), _with("class_weights")),
    "intercept": Factor(("true", "false"), _with("intercept")),
    "standardize": Factor(("true", "false"), _with("standardize")),
    "data": Factor(("inline", *FILES, "sparse"), _trains(TABLE)),
    "order": Factor((SOME, NONE), _has_role("time")),
    "fixed weights": Factor((NONE, "positive", "zeros"), _has_role("weights")),
    "scoring": Factor((NONE, SOME), _has_role("scoring")),
    "offset": Factor((NONE, SOME), _has_role("offset")),
    "test part": Factor((NONE, SOME)),
    "nested": Factor((NONE, SOME)),
    "starts": Factor(("1", "2")),
}
PLAIN_OF = {"quadratic": {"selection": "quadratic"}}  # what goes with a training criterion, but the first level


def example(choice: Choice) -> Problem:
    """The data of a choice."""
    return EXAMPLES[choice["training"]]


def plain(wanted: Choice) -> Choice | None:
    """The choice with plain levels beside those that are wanted; None if one of these has no place there."""
    choice = {"training": wanted.get("training") or next(_trainings_for(wanted), "ridge")}
    for name, factor in FACTORS.items():
        if name not in choice and factor.applies(choice):
            choice[name] = wanted.get(name) or _level_for(name, wanted, _usual(name, choice))
    return choice if wanted.items() <= choice.items() else None


def _trainings_for(wanted: Choice) -> Iterator[str]:
    """Training criteria with which all factors that are wanted have a place."""
    for kind in TRAININGS:
        if plain({"training": kind, **wanted}) is not None:
            yield kind


def _level_for(name: str, wanted: Choice, usual: str) -> str:
    """A level of a factor by which a later one, which is wanted, has a place."""
    if name == "penalty" and "form" in wanted:
        return "quadratic_forms"
    if name in {"penalty", "widths"} and "spread" in wanted:
        return "per_feature"
    if name == "selection" and "noise" in wanted:
        return "evidence"
    return usual


def restricted(choice: Choice) -> Choice:
    """The choice with the factors that have a place, all of them and no others."""
    found: Choice = {}
    for name, factor in FACTORS.items():
        if factor.applies(found):
            found[name] = choice.get(name) or _usual(name, found)
    return found


def _usual(name: str, choice: Choice) -> str:
    return PLAIN_OF.get(choice.get("training", ""), {}).get(name, FACTORS[name].levels[0])


def request(choice: Choice) -> Part:
    """The request that a choice stands for: few evaluations on the example of its training criterion.

    With a hyper-prior there are as many as its whole path takes, unless outer folds repeat it.
    """
    few = 4 * int(choice["starts"])
    enough = None if choice["nested"] != SOME else 20  # the shared optimum, and some of the path
    parts: Part = {
        "data": _data(choice),
        "training": _training(choice),
        "selection": _selection(choice),
        "hypergradient": {"kind": choice["hypergradient"]},
        "outer": {"kind": choice["outer"], "max_iterations": 2, "starts": int(choice["starts"])},
        "limits": {"evaluations": enough if _spread(choice) else few},
        "seed": 3,
    }
    if choice["test part"] == SOME:
        parts["test_fraction"] = 0.25
    if choice["nested"] == SOME:
        parts["nested"] = {"folds": 2}
    return _renamed(parts) if choice.get("data") == "sparse" else parts


def _spread(choice: Choice) -> float | str | None:
    level = choice.get("spread", "null")
    return None if level == "null" else level if level == "auto" else float(level)


def _data(choice: Choice) -> Part:
    problem, roles = example(choice), _roles(choice)
    if choice.get("data", "inline") == "inline":
        data = inline(problem, roles)
        if choice.get("fixed weights") == "zeros":
            data["weights"] = _some_zero(data["weights"])
        return data
    if choice["data"] == "sparse":
        return {"dataset_id": dataset_id(choice["training"], "libsvm"), "target": "label"}
    named = {name: "zeros" if choice.get("fixed weights") == "zeros" and name == "weights" else name for name in roles}
    data = {"dataset_id": dataset_id(choice["training"], "csv"), "target": "y", "features": list("abcd"), **named}
    fills: Part = {"missing": {"fill": "mean", "indicator": True}, "median": {"fill": "median"}}
    fills["constant"] = {"fill": "constant", "value": -0.5}
    if choice["data"] in fills:
        data |= {"features": [*"abcd", "size"], "missing": {"columns": {"size": fills[choice["data"]]}}}
    if choice["data"] == "where":
        data["where"] = [{"column": "b", "min": 0.5}]
    return data


def _roles(choice: Choice) -> tuple[str, ...]:
    given = ("time", "groups", "fold", "source") if choice.get("order") == SOME else ()
    wanted = {"weights": "fixed weights", "scoring": "scoring", "offset": "offset"}
    return (*given, *(role for role, factor in wanted.items() if choice.get(factor, NONE) != NONE))


def _some_zero(weights: list[float]) -> list[float]:
    return [0.0 if i % 6 == 1 else weight for i, weight in enumerate(weights)]


def _training(choice: Choice) -> Part:
    part: Part = {"kind": choice["training"]}
    settings: dict[str, Callable[[str], Any]] = {
        "penalty": lambda _: _penalty(choice),
        "weights": lambda kind: {"kind": kind},
        "splines": lambda level: _splines(two=level == "two"),
        "kernel": lambda _: _kernel(choice),
        "landmarks": lambda _: {"count": 10, "seed": 3},
        "hinge": lambda level: level,
        "solver": lambda level: level,
        "class weights": lambda level: "balanced" if level == "balanced" else {_last_class(choice): 2.5},
        "intercept": lambda level: level == "true",
        "standardize": lambda level: level == "true",
        "multipliers": lambda level: [{"name": "g", "scale": level, "lower": 0.1}, {"name": "h"}],
    }
    for name, setting in settings.items():
        if choice.get(name, NONE) != NONE:
            part[name.replace(" ", "_")] = setting(choice[name])
    return part


def _last_class(choice: Choice) -> str:
    classes = example(choice).classes
    return str(len(classes) - 1) if choice.get("data") == "sparse" else classes[-1]


def _penalty(choice: Choice) -> Part:
    part: Part = {"kind": choice["penalty"], "initial": 0.1}
    if choice["penalty"] in ALIKE:
        part["spread"] = _spread(choice)
    filled = choice.get("data") in {"missing", "median", "constant"}  # there are more features than a to d
    if choice["penalty"] == "per_group" and not filled:
        bent = {"none": "", "one": "a", "two": "ad"}[choice["splines"]]
        part["groups"] = {"first": [name for name in "abcd" if name not in bent], "second": ["b", "c"]}
    if choice["penalty"] == "quadratic_forms":
        form = {"kind": choice["form"], "name": "chosen", **FORMS.get(choice["form"], {})}
        return part | {"forms": [form, {"kind": "identity", "name": "size"}]}
    return part


def _splines(*, two: bool) -> list[Part]:
    cyclic = {"feature": "d", "basis": 6, "degree": 2, "order": 1, "cyclic": True, "lower": -3.0, "upper": 3.0}
    return [{"feature": "a", "basis": 7}, *([cyclic] if two else [])]


def _kernel(choice: Choice) -> Part:
    part: Part = {"kind": choice["kernel"], **KERNELS.get(choice["kernel"], {})}
    if "widths" in choice:
        part |= {"features": list("abcd"), "widths": {"kind": choice["widths"]}}
        if choice["widths"] in ALIKE:
            part["widths"]["spread"] = _spread(choice)
        if choice["widths"] == "per_group":
            part["widths"]["groups"] = GROUPS
    if "period" in part:
        part["period"] = PERIOD
    return part


def _selection(choice: Choice) -> Part:
    part: Part = {"kind": choice["selection"], **SELECTIONS.get(choice["selection"], {})}
    if choice["selection"] == "walk_forward":
        part |= {"initial": 8, "horizon": 8}  # leaves an outer fold enough rows
    if choice.get("loss", NONE) != NONE:
        part["loss"] = {"kind": choice["loss"]}
    if choice.get("noise", NONE) != NONE:
        part["noise_variance"] = {"initial": 0.5}
    return part


def _renamed(parts: Part) -> Part:
    """The features a, b, c, d by the names that a sparse file gives them."""
    names = dict(zip("abcd", "1234", strict=True))

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: renamed(member) for name, member in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    return {**parts, "training": renamed(parts["training"])}


@functools.cache
def _files() -> dict[tuple[str, Format], bytes]:
    """The example of each training criterion as files; a column of the table has weights of which some are zero."""
    found: dict[tuple[str, Format], bytes] = {}
    for kind in TABLE:
        head, *rows = csv(EXAMPLES[kind]).decode().splitlines()
        place = head.split(",").index("weights")
        zeros = _some_zero([float(row.split(",")[place]) for row in rows])
        lines = [f"{head},zeros", *(f"{row},{zero}" for row, zero in zip(rows, zeros, strict=True))]
        found[kind, "csv"] = ("\n".join(lines) + "\n").encode()
        found[kind, "libsvm"] = libsvm(EXAMPLES[kind])
    return found


def dataset_id(kind: str, form: Format) -> str:
    """What the dataset of a training criterion is called."""
    return f"ds_{hashlib.sha256(_files()[kind, form]).hexdigest()}"


def shelve(directory: Path) -> None:
    """Put the files of all examples into the storage of a data directory."""
    storage = LocalStorage(directory / "datasets")
    for (_, form), content in _files().items():
        file = directory / "file"
        file.write_bytes(content)
        add_file(storage, file, form)
