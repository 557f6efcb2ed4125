"""Columns of a dataset get roles and become features: against tables that are made by hand."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_array

from tests.datasets.files import Shelf, npy
from worker.contract.columns import Selected, select
from worker.contract.data import DatasetData
from worker.contract.faults import Fault
from worker.core.hypergradient import HypergradientAuto
from worker.core.outer import Newton
from worker.core.penalties import PerGroup
from worker.core.rows.problem import Problem
from worker.core.search.plan import Plan, prepare
from worker.core.selection import KFold, WalkForward
from worker.core.training import LogisticRegression, MultinomialRegression, Ridge, Training
from worker.datasets import Table
from worker.datasets.features import UnusableError, problem_of

ROWS = 48
RNG = np.random.default_rng(3)
AREA = RNG.normal(size=ROWS).round(6)
ROOMS = RNG.integers(1, 5, ROWS)
TOWN = [("Ulm", "Bonn", "Kiel")[i] for i in RNG.integers(0, 3, ROWS)]
DAY = [date(2023, 11, 20) + timedelta(days=9 * i) for i in range(ROWS)]
AGE = [None if RNG.random() < 0.2 else int(age) for age in RNG.integers(0, 90, ROWS)]
RIDGE = Ridge()
PRICE = (AREA + ROOMS + RNG.normal(size=ROWS)).round(6)
FOLD = np.arange(ROWS) % 3
COLUMNS = {"area": AREA, "rooms": ROOMS, "town": TOWN, "day": DAY, "age": AGE, "price": PRICE, "fold": FOLD}


def csv_file(columns: dict[str, Any]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(["" if value is None else value for value in row] for row in zip(*columns.values(), strict=True))
    return text.getvalue().encode()


@pytest.fixture
def table(shelf: Shelf) -> Table:
    return shelf.table(csv_file(COLUMNS), "csv")


def chosen(table: Table, training: Training = RIDGE, **data: Any) -> Selected | list[Fault]:
    spec = DatasetData.model_validate({"dataset_id": table.dataset.id, "target": "price", **data})
    return select(spec, table.dataset, training)


def problem(table: Table, training: Training = RIDGE, **data: Any) -> Problem:
    selected = chosen(table, training, **data)
    assert isinstance(selected, Selected), selected
    made = problem_of(table, selected)
    assert made.X.shape == (len(made.y), len(made.features))
    return made


def rows(made: Problem) -> np.ndarray:
    """All features, read in pieces of every kind."""
    X, n = made.X, len(made.y)
    if isinstance(X, csr_array):
        return X.toarray()
    whole = X[0:n]
    assert_allclose(np.vstack([X[0:7], X[np.arange(7, n)]]), whole)
    assert_allclose(X[np.arange(1, n, 3)], whole[1::3])
    return whole


def test_plain_columns_are_the_table(table: Table) -> None:
    made = problem(table, features=["rooms", "area"])
    assert made.features == ("rooms", "area")
    assert (rows(made) == np.column_stack([ROOMS, AREA])).all()
    assert (made.y == PRICE).all()


def test_categories_become_a_feature_each(table: Table) -> None:
    made = problem(table, features=["town", "rooms", "area"], categorical=["rooms"])
    assert made.features == (
        "town=Bonn", "town=Kiel", "town=Ulm", "rooms=1", "rooms=2", "rooms=3", "rooms=4", "area"
    )  # fmt: skip
    towns = [[town == name for name in ("Bonn", "Kiel", "Ulm")] for town in TOWN]
    assert (rows(made) == np.column_stack([towns, [[r == k for k in (1, 2, 3, 4)] for r in ROOMS], AREA])).all()


@pytest.mark.parametrize(
    ("features", "names"),
    [
        (["a*"], ["area", "age"]),
        (["*o*"], ["rooms", "town=Bonn", "town=Kiel", "town=Ulm"]),
        (["price?", "rooms", "r*"], None),
        ([{"all_but": ["day", "t*", "age"]}], ["area", "rooms"]),
        (["rooms", {"all_but": ["day", "town", "age"]}], ["rooms", "area"]),
    ],
)
def test_features_by_name_by_pattern_and_all_but_some(table: Table, features: list[Any], names: list[str] | None):
    found = chosen(table, features=features, fold="fold", where=[{"column": "age"}])
    if names is None:
        assert [(fault.pointer, fault.code) for fault in found] == [("/data/features/0", "unknown_column")]
    else:
        assert list(found.features) == names


def test_dates_become_what_is_asked_for(table: Table) -> None:
    parts = ["days", "year", "day", "day_of_year", "month", "weekday", "hour"]
    made = problem(table, features=["day"], dates={"day": parts})
    X, place = rows(made), {name: j for j, name in enumerate(made.features)}
    for i, day in enumerate(DAY):
        assert X[i, place["day[days]"]] == (day - date(1970, 1, 1)).days
        assert X[i, place["day[year]"]] == day.year
        assert X[i, place["day[day]"]] == day.day
        assert X[i, place["day[day_of_year]"]] == day.timetuple().tm_yday
        for month in range(1, 13):
            assert X[i, place[f"day[month]={month}"]] == (day.month == month)
        for weekday in range(1, 8):
            assert X[i, place[f"day[weekday]={weekday}"]] == (day.isoweekday() == weekday)
        assert X[i, place["day[hour]=0"]] == 1


def test_hours_of_times(shelf: Shelf) -> None:
    times = [f"2024-02-{1 + h // 24:02d}T{h % 24:02d}:59:59Z" for h in range(48)]
    table = shelf.table(csv_file({"t": times, "price": PRICE}), "csv")
    made = problem(table, dates={"t": ["hour"]})
    assert (rows(made).argmax(axis=1) == np.arange(48) % 24).all()


def test_missing_numbers_and_categories(shelf: Shelf) -> None:
    town = [None if i % 7 == 0 else name for i, name in enumerate(TOWN)]
    table = shelf.table(csv_file(COLUMNS | {"town": town}), "csv")
    rules = {"default": {"fill": "median", "indicator": True}, "columns": {"town": {}}}
    made = problem(table, features=["area", "town", "age"], missing=rules)
    assert made.features == (
        "area", "town=Bonn", "town=Kiel", "town=Ulm", "town is missing", "age", "age is missing"
    )  # fmt: skip
    X = rows(made)
    assert (X[:, 4] == [name is None for name in town]).all()
    assert (X[:, 1:5].sum(axis=1) == 1).all()
    gone = np.array([age is None for age in AGE])
    assert (np.isnan(X[:, 5]) == gone).all()
    assert (X[:, 6] == gone).all()
    assert made.imputation.columns.tolist() == [5]
    assert made.imputation.rules == ("median",)


def test_ranges_choose_rows(table: Table) -> None:
    made = problem(table, features=["area", "age"], where=[{"column": "rooms", "min": 2, "max": 3}, {"column": "age"}])
    kept = [i for i in range(ROWS) if 2 <= ROOMS[i] <= 3 and AGE[i] is not None]
    assert (rows(made) == np.array([[AREA[i], AGE[i]] for i in kept])).all()
    assert (made.y == PRICE[kept]).all()
    with pytest.raises(UnusableError, match=r"Row \d+, column 'age': the value is missing"):
        problem_of(table, chosen(table, features=["age"], where=[{"column": "rooms", "min": 2}]))
    with pytest.raises(UnusableError, match="At least 2 rows are needed, and 1 meet the conditions"):
        problem_of(table, chosen(table, features=["area"], where=[{"column": "area", "min": AREA.max()}]))


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ([{"column": "town", "equals": "Kiel"}], [town == "Kiel" for town in TOWN]),
        ([{"column": "town", "in": ["Ulm", "Bonn"]}], [town != "Kiel" for town in TOWN]),
        ([{"column": "town", "not_in": ["Ulm"]}], [town != "Ulm" for town in TOWN]),
        (
            [{"column": "day", "min": "2024-01-01", "max": "2024-06-30"}],
            [date(2024, 1, 1) <= day <= date(2024, 6, 30) for day in DAY],
        ),
        ([{"column": "day", "equals": DAY[5].isoformat()}, {"column": "rooms"}], [day == DAY[5] for day in DAY]),
        ([{"column": "age", "not_in": [AGE[0] or 0]}], [age is not None and age != (AGE[0] or 0) for age in AGE]),
    ],
)  # fmt: skip
def test_texts_and_dates_choose_rows(table: Table, where: list[dict[str, Any]], kept: list[bool]) -> None:
    selected = chosen(table, features=["area"], where=where)
    assert isinstance(selected, Selected), selected
    if sum(kept) < 2:
        with pytest.raises(UnusableError, match=f"and {sum(kept)} meet the conditions"):
            problem_of(table, selected)
        return
    assert (problem_of(table, selected).y == PRICE[np.array(kept)]).all()


def test_a_number_of_a_wide_table_is_a_target_of_classes(shelf: Shelf) -> None:
    """As in a microarray: few rows, thousands of numbers, the class a number. Not all columns can be listed."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3500)).round(3)
    X[:, 1300], X[:, 3499] = np.arange(60) % 2, np.arange(60) % 3
    table = shelf.table(npy(X), "npy")
    names = [column.name for column in table.dataset.columns]
    listed = sum(len(column.values or ()) for column in table.dataset.columns)
    assert 150_000 < listed <= 200_000
    for position, training, classes in ((1300, LogisticRegression(), 2), (3499, MultinomialRegression(), 3)):
        made = problem(table, training=training, target=names[position], features=names[:3])
        assert made.classes == tuple("012"[:classes])
        assert (made.y == X[:, position]).all()
        source = chosen(table, target=names[0], features=names[1:3], source=names[position])
        assert isinstance(source, Selected)
        assert source.source_names == tuple("012"[:classes])


def test_the_record_of_an_old_wide_table_lists_no_values(shelf: Shelf) -> None:
    """Datasets stay as they were stored: two values are known, of more it is told what to do."""
    X = np.column_stack([np.random.default_rng(0).normal(size=30), np.arange(30) % 2, np.arange(30) % 3])
    table = shelf.table(npy(X), "npy")
    old = [column.model_copy(update={"values": None}) for column in table.dataset.columns]
    table = replace(table, dataset=table.dataset.model_copy(update={"columns": old}))
    names = [column.name for column in old]
    made = problem(table, training=LogisticRegression(), target=names[1], features=names[:1])
    assert (made.classes, made.y.tolist()) == (("0", "1"), X[:, 1].tolist())
    for data, pointer in (
        ({"target": names[2], "features": names[:1]}, "/data/target"),
        ({"target": names[1], "features": names[:1], "source": names[2]}, "/data/source"),
        ({"target": names[1], "features": names[2:], "categorical": names[2:]}, "/data/features"),
    ):
        (fault,) = chosen(table, LogisticRegression(), **data)
        assert fault.pointer == pointer
        assert "has 3 different values, which the record of this wide table does not list; delete" in fault.detail


def test_durations_are_of_the_time_column(table: Table) -> None:
    made = problem(table, features=["area"], time="day")
    assert made.time_in_days
    assert not problem(table, features=["area"], time="rooms").time_in_days
    selection = WalkForward(initial="P100D", horizon="P30D", gap="P1W")
    partition = selection.partition(np.arange(ROWS), ROWS, made)
    first = DAY[0] + timedelta(days=107)
    train, scored = partition.splits[0]
    assert [DAY[i] for i in partition.rows(train)] == [day for day in DAY if day < DAY[0] + timedelta(days=100)]
    assert [DAY[i] for i in partition.rows(scored)] == [day for day in DAY if first <= day < first + timedelta(days=30)]


def test_roles_become_vectors(table: Table) -> None:
    made = problem(table, features=["area"], time="day", groups="town", source="rooms", weights="rooms", fold="fold")
    assert (made.time == [(day - date(1970, 1, 1)).days for day in DAY]).all()
    assert [("Bonn", "Kiel", "Ulm")[code] for code in made.groups] == TOWN
    assert [int(made.source_names[code]) for code in made.source] == ROOMS.tolist()
    assert (made.weights == ROOMS).all()
    assert (made.fold == FOLD).all()


def test_one_penalty_for_each_column_equals_the_groups_written_by_hand(table: Table) -> None:
    selected = chosen(table, features=["area", "town", "rooms"], categorical=["rooms"])
    made = problem_of(table, selected)
    by_hand = {"area": ("area",), "town": made.features[1:4], "rooms": made.features[4:]}
    assert selected.groups == by_hand
    plan = Plan(Ridge(penalty=PerGroup(groups=by_hand)), KFold(), HypergradientAuto(), Newton())
    rho = np.array([0.3, -1.0, 0.7])
    lazy = prepare(made, plan).objective.evaluate(rho)
    dense = prepare(replace(made, X=np.ascontiguousarray(rows(made))), plan).objective.evaluate(rho)
    assert lazy.value == dense.value
    assert (lazy.gradient == dense.gradient).all()


FAULTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "unknown target": ({"target": "prize"}, "/data/target", "unknown_column", "did you mean 'price'"),
    "unknown feature": ({"features": ["area", "room"]}, "/data/features/1", "unknown_column", "did you mean 'rooms'"),
    "unknown exception": (
        {"features": [{"all_but": ["x"]}]}, "/data/features/0/all_but/0", "unknown_column", "no column 'x'"
    ),
    "unknown time": ({"time": "dayz"}, "/data/time", "unknown_column", "did you mean 'day'"),
    "unknown range": ({"where": [{"column": "z"}]}, "/data/where/0/column", "unknown_column", "no column 'z'"),
    "unknown date": ({"dates": {"a/b": ["days"]}}, "/data/dates/a~1b", "unknown_column", "no column 'a/b'"),
    "unknown fill": (
        {"missing": {"columns": {"agee": {}}}}, "/data/missing/columns/agee", "unknown_column", "did you mean 'age'"
    ),
    "target as feature": ({"features": ["area", "price"]}, "/data/features/1", "target", "cannot be a feature"),
    "text as target": ({"target": "town"}, "/data/target", "not_a_number", "holds texts"),
    "date as target": ({"target": "day"}, "/data/target", "not_a_number", "holds dates"),
    "text as weights": ({"weights": "town", "features": ["area"]}, "/data/weights", "not_a_number", "holds texts"),
    "negative weights": ({"weights": "area", "features": ["rooms"]}, "/data/weights", "negative", "down to -"),
    "missing target": ({"target": "age", "features": ["area"]}, "/data/target", "missing_values", "missing values"),
    "missing feature": ({"features": ["age"]}, "/data/missing", "missing_values", "'age' has"),
    "undated": ({"features": ["day"]}, "/data/dates", "date", "'day' holds dates"),
    "wild category": (
        {"features": ["area"], "categorical": ["area"], "target": "rooms"}, "", "", ""
    ),
    "folds out of range": ({"fold": "day", "features": ["area"]}, "/data/fold", "not_a_number", "dates"),
    "nothing": ({"features": []}, "/data/features", "empty", "No column is left"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_roles_are_told_where_and_what_to_do(table: Table, name: str) -> None:
    data, pointer, code, words = FAULTS[name]
    found = chosen(table, **data)
    if not pointer:
        assert isinstance(found, Selected)  # 48 different numbers may be categories
        return
    assert isinstance(found, list)
    assert (found[0].pointer, found[0].code) == (pointer, code)
    assert words in found[0].detail
    assert found[0].detail.endswith(".")


def test_too_many_values_for_a_category(shelf: Shelf) -> None:
    table = shelf.table(npy(np.random.default_rng(0).normal(size=(120, 2))), "npy")
    names = [column.name for column in table.dataset.columns]
    spec = {"target": names[0], "categorical": [names[1]]}
    (fault,) = chosen(table, **spec)
    assert (fault.pointer, fault.code) == ("/data/features", "too_many_categories")


def test_folds_must_be_whole_numbers(table: Table) -> None:
    selected = chosen(table, features=["area"], fold="rooms")
    assert problem_of(table, selected).fold.max() == 4
    with pytest.raises(UnusableError, match="whole numbers"):
        problem_of(table, replace(selected, roles={"fold": selected.made[0].position}))


def libsvm(dense: np.ndarray, y: np.ndarray) -> bytes:
    lines = (
        f"{label:.17g} " + " ".join(f"{j + 1}:{value:.17g}" for j, value in enumerate(row) if value)
        for row, label in zip(dense, y, strict=True)
    )
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("share", [0.03, 0.5])
def test_sparse_columns(shelf: Shelf, share: float) -> None:
    rng = np.random.default_rng(1)
    X = np.where(rng.random((60, 30)) < share, rng.normal(size=(60, 30)).round(3), 0.0)
    X[0, 29] = 1.0
    y = rng.normal(size=60).round(3)
    table = shelf.table(libsvm(X, y), "libsvm")
    label = table.dataset.columns[0].name
    made = problem(table, target=label)
    assert isinstance(made.X, csr_array) == (share < 0.1)
    assert made.features == tuple(str(j) for j in range(1, 31))
    assert_allclose(rows(made), X)
    assert (made.y == y).all()
    some = problem(table, target="3", features=["7", label, "1?"], where=[{"column": label, "max": 0.0}])
    assert some.features == ("7", label, *(str(j) for j in range(10, 20)))
    kept = y <= 0
    assert_allclose(rows(some), np.column_stack([X[:, 6], y, X[:, 9:19]])[kept])
    assert_allclose(some.y, X[kept, 2])
