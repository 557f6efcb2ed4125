"""Files of real writers: each cell is what the writer's own reader says. `pytest -m files`, with the extra test-files.

Without its packages these tests fail: they are imported where they are needed, so that the other tests do without.
"""

from __future__ import annotations

import datetime as dt
import decimal
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from tests.datasets.files import Shelf
from tests.datasets.writers.cells import Own, same
from worker.contract.dataset import Format

pytestmark = [
    pytest.mark.files,
    pytest.mark.filterwarnings("default"),  # what other libraries are warned of is theirs
]
ROWS = 400
RNG = np.random.default_rng(11)
HOLES = RNG.random(ROWS) < 0.15
ZONE = "Europe/Berlin"
NAMES = ["Stra\u00dfe", "\u65e5\u672c", "a b", 'in "quotes"', "with, comma", "semi;colon"]
WORDS = ["n", "p", "", "\u00e9t\u00e9", "two words", "long " * 20, "x,y", 'q"q', "line\nbreak"]


def holes(values: Any) -> list[Any]:
    """The values, some of them missing."""
    return [None if hole else value for hole, value in zip(HOLES, list(values), strict=True)]


def plain() -> dict[str, list[Any]]:
    """Values of Python for each kind of column."""
    start, whole = dt.datetime(2019, 3, 30, 20, tzinfo=dt.UTC), RNG.integers(-(2**40), 2**40, ROWS).tolist()
    moments = [start + dt.timedelta(minutes=37 * i, microseconds=i) for i in range(ROWS)]  # through a change of clocks
    return {
        "float": (RNG.normal(size=ROWS) * 10.0 ** RNG.integers(-300, 300, ROWS)).tolist(),
        "float, missing": holes(RNG.normal(size=ROWS).tolist()),
        "integer": whole,
        "integer, missing": holes(RNG.integers(-100, 100, ROWS).tolist()),
        "large": [2**53 + 2 * i + 1 for i in range(ROWS)],
        "flag": (RNG.random(ROWS) < 0.5).tolist(),
        "flag, missing": holes((RNG.random(ROWS) < 0.5).tolist()),
        "text": [WORDS[i] for i in RNG.integers(0, len(WORDS), ROWS)],
        "text, missing": holes([WORDS[i] for i in RNG.integers(0, len(WORDS), ROWS)]),
        "date": [dt.date(1960, 1, 1) + dt.timedelta(days=int(i)) for i in RNG.integers(0, 30_000, ROWS)],
        "moment": [moment.replace(tzinfo=None) for moment in moments],
        "moment, missing": holes([moment.replace(tzinfo=None) for moment in moments]),
        "decimal": [decimal.Decimal(int(i)).scaleb(-3) for i in RNG.integers(-(10**9), 10**9, ROWS)],
        "nothing": [None] * ROWS,
        **{name: RNG.integers(0, 9, ROWS).tolist() for name in NAMES},
    }


PLAIN = plain()
LETTERS = [("a", "b", "c")[i] for i in RNG.integers(0, 3, ROWS)]


def check(shelf: Shelf, path: Path, kind: Format, own: Own, *, empty: bool = True) -> None:
    same(shelf.table(path.read_bytes(), kind), own, empty=empty)


# Polars


def polars_frame() -> Any:
    import polars as pl  # noqa: PLC0415

    frame = pl.DataFrame({**PLAIN, "decimal": pl.Series(PLAIN["decimal"], dtype=pl.Decimal(20, 3))})
    small = pl.Series(RNG.integers(0, 100, ROWS))
    letters = pl.Series(holes(LETTERS))
    return frame.with_columns(
        *(small.cast(kind).alias(str(kind)) for kind in (pl.Int8, pl.UInt8, pl.Int16, pl.UInt16, pl.Int32, pl.UInt32)),
        small.cast(pl.UInt64).alias("u64"),
        pl.Series(RNG.normal(size=ROWS)).cast(pl.Float32).alias("f32"),
        letters.cast(pl.Categorical).alias("categorical"),
        letters.cast(pl.Enum(["unused", "c", "b", "a", "never"])).alias("enum"),
        pl.col("moment").cast(pl.Datetime("ms")).alias("ms"),
        pl.col("moment").cast(pl.Datetime("ns")).alias("ns"),
        pl.col("moment").dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE).alias("zone"),
        (pl.col("text") + "x" * 40).alias("view"),
    )


def polars_files(directory: Path) -> dict[str, tuple[Format, Path, Any]]:
    import polars as pl  # noqa: PLC0415

    frame = polars_frame()
    filtered = frame.filter(pl.col("enum") != "b", pl.col("categorical") != "c")
    joined = pl.concat([frame, frame[::-1], frame], rechunk=False)
    pieces = {
        "parquet": ("parquet", frame.write_parquet, pl.read_parquet),
        "parquet, small groups": ("parquet", lambda p: frame.write_parquet(p, row_group_size=37), pl.read_parquet),
        "parquet, lz4": ("parquet", lambda p: frame.write_parquet(p, compression="lz4"), pl.read_parquet),
        "parquet, filtered": ("parquet", filtered.write_parquet, pl.read_parquet),
        "parquet, through pyarrow": (
            "parquet", lambda p: frame.write_parquet(p, use_pyarrow=True), pl.read_parquet
        ),
        "ipc": ("arrow", frame.write_ipc, pl.read_ipc),
        "ipc, zstd": ("arrow", lambda p: frame.write_ipc(p, compression="zstd"), pl.read_ipc),
        "ipc, lz4": ("arrow", lambda p: frame.write_ipc(p, compression="lz4"), pl.read_ipc),
        "ipc, filtered": ("arrow", filtered.write_ipc, pl.read_ipc),
        "ipc, chunks": ("arrow", joined.write_ipc, pl.read_ipc),
        "stream": ("arrow", frame.write_ipc_stream, pl.read_ipc_stream),
        "stream, chunks": ("arrow", joined.write_ipc_stream, pl.read_ipc_stream),
    }  # fmt: skip
    made = {}
    for name, (kind, write, read) in pieces.items():
        path = directory / name
        write(path)
        made[name] = (kind, path, read(path.read_bytes()).to_dict(as_series=False))
    return made


def test_polars(shelf: Shelf, tmp_path: Path):
    for kind, path, own in polars_files(tmp_path).values():
        check(shelf, path, kind, own)


def test_polars_csv(shelf: Shelf, tmp_path: Path):
    import polars as pl  # noqa: PLC0415

    frame = polars_frame().drop("nothing", "large", "zone", "ns")
    frame.write_csv(tmp_path / "csv")
    own = pl.read_csv(tmp_path / "csv", try_parse_dates=True)
    own.columns = frame.columns  # in names it leaves quotes doubled, which others do not
    check(shelf, tmp_path / "csv", "csv", own.to_dict(as_series=False), empty=False)


# pandas, through pyarrow and fastparquet


def pandas_frame() -> Any:
    import pandas as pd  # noqa: PLC0415

    frame = pd.DataFrame({name: pd.Series(values) for name, values in PLAIN.items() if name != "nothing"})
    letters = pd.Series(holes(LETTERS))
    frame["Int64"] = pd.array(PLAIN["integer, missing"], "Int64")
    frame["boolean"] = pd.array(PLAIN["flag, missing"], "boolean")
    frame["Float32"] = pd.array(holes(RNG.normal(size=ROWS).astype("f4").tolist()), "Float32")
    frame["category"] = letters.astype(pd.CategoricalDtype(["unused", "c", "b", "a"], ordered=True))
    frame["category of numbers"] = pd.Categorical(RNG.integers(0, 4, ROWS) * 10)
    frame["ns"] = pd.Series(PLAIN["moment, missing"]).astype("datetime64[ns]")
    frame["zone"] = pd.Series(PLAIN["moment"]).dt.tz_localize("UTC").dt.tz_convert(ZONE)
    return frame


def of_pandas(frame: Any) -> dict[str, list[Any]]:
    """The columns of a frame, its index among them if it has one to speak of, as the files have them."""
    import pandas as pd  # noqa: PLC0415

    columns = {str(name): frame[name].tolist() for name in frame.columns}
    if isinstance(frame.index, pd.RangeIndex):
        return columns
    for i in range(frame.index.nlevels):
        name = frame.index.names[i]
        columns[f"__index_level_{i}__" if name is None else str(name)] = frame.index.get_level_values(i).tolist()
    return columns


def shuffled(frame: Any) -> Any:
    return frame.sample(frac=1, random_state=0)


def with_levels(frame: Any) -> Any:
    import pandas as pd  # noqa: PLC0415

    return frame.set_index(pd.MultiIndex.from_arrays([LETTERS, RNG.permutation(ROWS)], names=["letter", None]))


def with_dates(frame: Any) -> Any:
    import pandas as pd  # noqa: PLC0415

    return frame.set_axis(pd.date_range("2020-01-01", periods=ROWS, freq="7h", name="at"))


INDEXED: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda frame: frame,
    "shuffled": shuffled,
    "filtered": lambda frame: frame[frame["category"] != "b"].dropna(subset=["category"]),
    "named": lambda frame: frame.set_index("integer"),
    "levels": with_levels,
    "dates": with_dates,
}


@pytest.mark.parametrize("case", INDEXED)
def test_pandas(shelf: Shelf, tmp_path: Path, case: str):
    import pandas as pd  # noqa: PLC0415

    frame = INDEXED[case](pandas_frame())
    for options in ({}, {"row_group_size": 50, "compression": "zstd"}, {"use_dictionary": False, "version": "1.0"}):
        path = tmp_path / "parquet"
        frame.to_parquet(path, engine="pyarrow", **options)
        own = pd.read_parquet(path, engine="pyarrow")
        table = shelf.table(path.read_bytes(), "parquet")
        same(table, of_pandas(own))
        stored = {} if isinstance(own.index, pd.RangeIndex) else set(of_pandas(own)) - {str(c) for c in own.columns}
        assert {column.name for column in table.dataset.columns if column.index} == set(stored)
        assert {told.column for told in table.dataset.warnings if told.code == "index-column"} == set(stored)
    plain_frame = frame.reset_index(drop=True)
    plain_frame.to_feather(tmp_path / "feather")
    check(shelf, tmp_path / "feather", "arrow", of_pandas(pd.read_feather(tmp_path / "feather")))


def test_pandas_csv(shelf: Shelf, tmp_path: Path):
    import pandas as pd  # noqa: PLC0415

    frame = pandas_frame().drop(columns="zone")
    dates = ["date", "moment", "moment, missing", "ns"]
    for options in (
        {},
        {"sep": ";"},
        {"sep": "\t", "lineterminator": "\r\n"},
        {"encoding": "utf-8-sig"},
        {"quoting": 2},
    ):
        path = tmp_path / "csv"
        frame.to_csv(path, index=False, **options)
        sep = str(options.get("sep", ","))
        own = pd.read_csv(path, sep=sep, parse_dates=dates, dtype={"large": "Int64"})
        check(shelf, path, "csv", of_pandas(own), empty=False)


def test_fastparquet(shelf: Shelf, tmp_path: Path):
    import fastparquet  # noqa: PLC0415

    frame = pandas_frame().drop(columns=["decimal", "flag, missing", "date", "category of numbers"])
    for case, options in {
        "plain": {},
        "groups": {"row_group_offsets": 90, "compression": "GZIP"},
        "index": {"compression": "ZSTD"},
    }.items():
        made = shuffled(frame).rename_axis("row") if case == "index" else frame
        path = str(tmp_path / case)
        fastparquet.write(path, made, **options)
        own = fastparquet.ParquetFile(path).to_pandas()
        index = {} if case != "index" else {"row": own.index.tolist()}
        table = shelf.table(Path(path).read_bytes(), "parquet")
        same(table, {**index, **{name: own[name].tolist() for name in own.columns}})
        assert [column.name for column in table.dataset.columns if column.index] == list(index)


# DuckDB

DUCK = """
select
    i::tinyint as i8, i::utinyint as u8, i::smallint as i16, i::integer as i32, i::bigint as i64, i::ubigint as u64,
    (9007199254740993 + 2 * i)::bigint as large, i / 7.0::double as f64, (i / 7)::float as f32,
    (i / 100)::decimal(9, 3) as small_decimal, (i * 1000003)::decimal(30, 10) as big_decimal, i % 2 = 0 as flag,
    case when i % 5 = 0 then null else i end as missing, case when i % 7 = 0 then null else 't' || i % 9 end as text,
    (array['n', 'p', 'x'])[1 + i % 2]::kind as enum, date '1960-02-29' + i::integer as day,
    timestamp '2020-03-28 22:00:00.000001' + interval (37 * i) minute as moment,
    (timestamp '2020-03-28 22:00:00' + interval (i) second)::timestamp_s as s,
    (timestamp '2020-03-28 22:00:00' + interval (i) millisecond)::timestamp_ms as ms,
    (timestamp '2020-03-28 22:00:00' + interval (i) microsecond)::timestamp_ns as ns,
    (timestamp '2020-03-28 22:00:00' + interval (37 * i) minute)::timestamptz as zone, '' as empty,
    null::integer as nothing, i % 4 as "Stra\u00dfe ""q"", c"
from range(100) r(i)
"""


def duck() -> Any:
    import duckdb  # noqa: PLC0415

    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'; create type kind as enum ('n', 'p', 'never')")
    connection.execute(f"create table made as {DUCK}")
    return connection


def of_duck(connection: Any, source: str) -> dict[str, list[Any]]:
    found = connection.execute(f"select * from {source}")
    names = [column[0] for column in found.description]
    return dict(zip(names, (list(column) for column in zip(*found.fetchall(), strict=True)), strict=True))


def test_duckdb(shelf: Shelf, tmp_path: Path):
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import ipc  # noqa: PLC0415

    connection = duck()
    for i, options in enumerate(["", ", row_group_size 2048", ", compression zstd", ", parquet_version v2"]):
        path = tmp_path / f"{i}.parquet"
        connection.execute(f"copy made to '{path}' (format parquet{options})")
        check(shelf, path, "parquet", of_duck(connection, f"read_parquet('{path}')"))
    with ipc.new_stream(tmp_path / "arrow", (arrow := connection.table("made").to_arrow_table()).schema) as writer:
        writer.write_table(arrow)
    assert any(pa.types.is_dictionary(kind) for kind in arrow.schema.types)
    check(shelf, tmp_path / "arrow", "arrow", of_duck(connection, "made"))


def test_duckdb_csv(shelf: Shelf, tmp_path: Path):
    connection = duck()
    connection.execute(f"copy (select * exclude (nothing, large, ns) from made) to '{tmp_path}/csv' (header)")
    own = of_duck(connection, f"read_csv('{tmp_path}/csv')")
    check(shelf, tmp_path / "csv", "csv", own, empty=False)


@pytest.mark.parametrize(
    "value", ["time '12:00:00'", "interval 3 days", "uuid()", "'x'::blob", "[1, 2]", "{'a': 1}", "map {'a': 1}"]
)
def test_types_of_duckdb_that_are_not_read(shelf: Shelf, tmp_path: Path, value: str):
    import duckdb  # noqa: PLC0415

    path = tmp_path / "parquet"
    duckdb.sql(f"copy (select 1 as a, {value} as \"the column\") to '{path}' (format parquet)")
    (fault,) = shelf.refusal(path.read_bytes(), "parquet").faults
    assert (fault.pointer, fault.code) == ("/columns/1", "dtype")
    assert "'the column' is of type" in fault.detail


# pyarrow


def test_pyarrow(shelf: Shelf, tmp_path: Path):
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415
    from pyarrow import csv, feather  # noqa: PLC0415

    table = pa.table({**PLAIN, "letters": pa.array(holes(LETTERS)).dictionary_encode()})
    large = table.append_column("large text", table["text"].cast(pa.large_string()))
    path = tmp_path / "file"
    for options in (
        {},
        {"data_page_version": "2.0", "row_group_size": 33},
        {"store_schema": False},
        {"compression": "brotli"},
    ):
        pq.write_table(large, path, **options)
        check(shelf, path, "parquet", pq.read_table(path).to_pydict())
    for options in ({}, {"compression": "zstd", "chunksize": 70}, {"compression": "uncompressed"}):
        feather.write_feather(large, path, **options)
        check(shelf, path, "arrow", feather.read_table(path).to_pydict())
    text = table.drop_columns(["large", "nothing", "decimal"])
    csv.write_csv(text.set_column(text.num_columns - 1, "letters", text["letters"].cast(pa.string())), path)
    own = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True)).to_pydict()
    check(shelf, path, "csv", own, empty=False)


# numpy and scikit-learn


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f8", "i1", "u2", "<i8", "u8", "?"])
def test_numpy(shelf: Shelf, tmp_path: Path, dtype: str):
    values = (RNG.normal(size=(ROWS, 5)) * 20).astype(dtype) if dtype != "u8" else RNG.integers(0, 99, (ROWS, 5), dtype)
    for order in ("C", "F"):
        array = np.asarray(values, order=order)
        np.save(tmp_path / "a.npy", array)
        own = np.load(tmp_path / "a.npy")
        assert_array_equal(shelf.table((tmp_path / "a.npy").read_bytes(), "npy").dense, own)
        for save in (np.savez, np.savez_compressed):
            save(tmp_path / "a.npz", X=array, y=array[:, 0])
            pair = np.load(tmp_path / "a.npz")
            read = shelf.table((tmp_path / "a.npz").read_bytes(), "npz")
            assert_array_equal(read.dense, np.column_stack([pair["X"], pair["y"]]))


def test_records_of_pandas_in_npy(shelf: Shelf, tmp_path: Path):
    frame = pandas_frame()[["float", "integer", "flag", "ns", *NAMES]]
    records = frame.to_records(index=False)
    np.save(tmp_path / "a.npy", records)
    own = np.load(tmp_path / "a.npy")
    names = [name for name in own.dtype.names if name != "flag"]
    table = shelf.table((tmp_path / "a.npy").read_bytes(), "npy")
    at = [column.name for column in table.dataset.columns]
    assert at == list(own.dtype.names)
    for name in names:
        values = own[name].astype("M8[us]").astype(float) / 86_400e6 if name == "ns" else own[name].astype(float)
        values = np.where(np.isnat(own[name]), np.nan, values) if name == "ns" else values
        assert_array_equal(table.dense[:, at.index(name)], values, name)


@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize("comment", [None, "made here"])
def test_scikit_learn(shelf: Shelf, tmp_path: Path, zero_based: bool, comment: str | None):
    from sklearn.datasets import dump_svmlight_file, load_svmlight_file  # noqa: PLC0415

    matrix = sparse.random_array((ROWS, 30), density=0.2, rng=np.random.default_rng(5), format="lil")
    matrix[0, [0, 29]] = 1.5
    labels = RNG.integers(0, 3, ROWS)
    path = tmp_path / "svm"
    dump_svmlight_file(matrix.tocsr(), labels, str(path), zero_based=zero_based, comment=comment)
    own, classes = load_svmlight_file(str(path), zero_based=zero_based)
    table = shelf.table(path.read_bytes(), "libsvm")
    assert table.sparse is not None
    assert_array_equal(table.sparse.toarray(), own.toarray())
    assert_array_equal(table.dense[:, 0], classes)


def test_scipy(shelf: Shelf):
    matrix = sparse.random_array((ROWS, 30), density=0.2, rng=np.random.default_rng(6), format="csr")
    for made in (matrix, matrix.tocsc(), matrix.tocoo(), sparse.csr_matrix(matrix)):
        for compressed in (True, False):
            buffer = io.BytesIO()
            sparse.save_npz(buffer, made, compressed=compressed)
            table = shelf.table(buffer.getvalue(), "npz")
            assert table.sparse is not None
            assert_array_equal(table.sparse.toarray(), sparse.load_npz(io.BytesIO(buffer.getvalue())).toarray())
