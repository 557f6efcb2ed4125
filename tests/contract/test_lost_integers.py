"""Integers of a request that float64 would merge: kept as groups, refused by their place as numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.contract.specs import document
from worker.contract.data import InlineData
from worker.contract.inline import lost_integers
from worker.contract.spec import JobSpec
from worker.core.selection import GroupKFold

BIG = 2**53


def places(**data: Any) -> list[str]:
    body = json.dumps(document(**{f"data__{name}": values for name, values in data.items()})).encode()
    spec = JobSpec.model_validate_json(body)
    assert isinstance(spec.data, InlineData)
    found = list(lost_integers(spec.inline(), body))
    assert all(fault.code == "integers-beyond-double" and fault.detail.endswith(".") for fault in found)
    return [fault.pointer for fault in found]


@pytest.mark.parametrize("value", [BIG + 1, -BIG - 1, 2**63 - 1, 2**64 - 1, 10**19 + 1])
def test_the_first_lost_integer_of_each_list_is_named(value: int):
    assert places(y=[1, 2.5, value, value, *[0] * 8]) == ["/data/y/2"]
    assert places(time=[value, *range(11)], weights=[1] * 11 + [abs(value)]) == ["/data/time/0", "/data/weights/11"]
    assert places(x=[[1.0, 2.0, 3.0]] * 5 + [[1, value, 0]] * 7) == ["/data/x/5/1"]


@pytest.mark.parametrize("value", [BIG, BIG + 2, 2**62, 1e300, 9007199254740993.0, 10**21, 12])
def test_other_numbers_are_taken(value: float):
    assert places(y=[value] * 12, time=[value] * 12) == []


def test_names_are_taken():
    assert places(y=[str(BIG), str(BIG + 1)] * 6) == []


@pytest.mark.parametrize("first", [1457895623450001408, -(2**63), 2**63 - 2, 2**64 - 4])
def test_groups_are_exact_to_64_bits(first: int):
    ids = [first + i % 4 for i in range(12)]
    groups = [first + i % 4 if i % 4 else -5 for i in range(12)]  # with one that is negative
    spec = JobSpec.model_validate_json(json.dumps(document(data__groups=groups)))
    assert np.unique(spec.problem().groups).tolist() == [0, 1, 2, 3]
    partition = GroupKFold(folds=4, group_of_row=tuple(ids)).partition(np.arange(12), 12)
    assert [len(set(partition.block_of_row[i::4])) for i in range(4)] == [1] * 4
    assert len(set(partition.block_of_row)) == 4
