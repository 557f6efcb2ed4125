"""Reading options: how they are written, what they fit, and the id that they give a dataset."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.dataset import Format, ReadingOptions
from worker.contract.reading import SHORTHANDS, THOUSANDS, dataset_id, parse_options, query_of, unfit

DIGEST = hashlib.sha256(b"a\n1\n").hexdigest()


def parsed(**query: str) -> ReadingOptions:
    options = parse_options(query.items())
    assert isinstance(options, ReadingOptions), options
    return options


def test_options_as_they_are_written():
    options = parsed(
        missing="?,-", decimal=",", thousands="space", encoding="Latin-1", delimiter="tab", header="False",
        types="zip:category,a,b:number,c:d:date",
    )  # fmt: skip
    assert options.given() == {
        "missing": ["-", "?"], "decimal": ",", "thousands": " ", "encoding": "iso8859-1", "delimiter": "\t",
        "header": False, "types": {"a,b": "number", "c:d": "date", "zip": "category"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("decimal", ";", "invalid_option"),
        ("thousands", "x", "invalid_option"),
        ("thousands", ".", "invalid_option"),
        ("encoding", "klingon", "invalid_option"),
        ("encoding", "hex", "invalid_option"),
        ("encoding", "unicode_escape", "invalid_option"),
        ("delimiter", ",,", "invalid_option"),
        ("delimiter", "a", "invalid_option"),
        ("delimiter", '"', "invalid_option"),
        ("header", "maybe", "invalid_option"),
        ("types", "zip", "invalid_option"),
        ("types", "zip:text", "invalid_option"),
        ("types", "zip:number,", "invalid_option"),
        ("delimeter", ",", "unknown_parameter"),
    ],
)
def test_what_is_wrong_is_named(name: str, text: str, code: str):
    (fault,) = parse_options([(name, text)])  # type: ignore[misc]
    assert (fault.pointer, fault.code) == (f"/query/{name}", code)
    assert fault.detail.endswith(".")


def test_an_unknown_option_has_a_nearest_one():
    (fault,) = parse_options([("delimeter", ",")])  # type: ignore[misc]
    assert "'delimiter'" in fault.detail


def test_options_twice():
    assert parse_options([("missing", "?"), ("missing", "-,?"), ("types", "a:number"), ("types", "b:date")]) == parsed(
        missing="-,?", types="b:date,a:number"
    )
    (fault,) = parse_options([("decimal", "."), ("decimal", ",")])  # type: ignore[misc]
    assert fault.code == "duplicate"


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "npy", "npz", "libsvm"])
def test_options_that_mean_nothing_to_a_format(kind: Format):
    options = parsed(delimiter=";", types="a:number")
    names = {"csv": [], "parquet": ["delimiter"], "arrow": ["delimiter"]}.get(kind, ["delimiter", "types"])
    assert [(fault.pointer, fault.code) for fault in unfit(options, kind)] == [
        (f"/query/{name}", "unfit_option") for name in names
    ]


def test_the_id_without_options_is_that_of_the_content():
    for query in ({}, {"encoding": "UTF-8"}, {"encoding": "ascii"}, {"decimal": "."}):
        assert dataset_id(DIGEST, parsed(**query)) == f"ds_{DIGEST}"


def test_the_id_with_options_is_of_their_canonical_json():
    document = f'{{"files":["{DIGEST}"],"options":{{"header":false,"missing":["-","é"],"types":{{"a":"date"}}}}}}'
    options = parsed(types="a:date", missing="é,-", header="false")
    assert dataset_id(DIGEST, options) == f"ds_{hashlib.sha256(document.encode()).hexdigest()}"
    assert dataset_id(DIGEST, parsed(missing="")) not in {f"ds_{DIGEST}", dataset_id(DIGEST, parsed(missing="?"))}


OPTIONS = st.builds(
    lambda **given: given,
    missing=st.none() | st.lists(st.sampled_from(["?", "-", "n.d.", "äh"]), max_size=3).map(",".join),
    decimal=st.none() | st.sampled_from([".", ","]),
    thousands=st.none() | st.sampled_from(["'", " ", "_"]),
    encoding=st.none() | st.sampled_from(["utf-8", "latin-1", "UTF_16"]),
    delimiter=st.none() | st.sampled_from([*SHORTHANDS, "|", "~"]),
    header=st.none() | st.sampled_from(["true", "FALSE"]),
    types=st.none() | st.sampled_from(["a:number", "b c:date,d,e:category"]),
)


@given(OPTIONS)
def test_options_come_back_from_their_query(query: dict[str, str | None]):
    options = parsed(**{name: text for name, text in query.items() if text is not None})
    again = parse_options(query_of(options))
    assert again == options
    assert set(THOUSANDS) >= {options.thousands or ","}
