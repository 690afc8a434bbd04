"""Tables of others: refused by their metadata before memory is given to them."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kv_claims.errors import UsageError
from kv_claims.files.tables import MOST_TEXT, check_texts, parquet_columns, read_csv, read_parquet

TABLES = {
    "many rows": (pa.table({"a": pa.array([0] * 5_000_001, pa.int8())}), "5,000,001 rows"),
    "many columns": (pa.table({f"c{n}": [1] for n in range(10_001)}), "10,001 columns"),
    "one text in many rows": (
        pa.table(
            {
                "a": pa.DictionaryArray.from_arrays(
                    pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 100_000])
                )
            }
        ),
        "9,536 MB of text unpacked",
    ),
    "lists": (pa.table({"a": [["x"], ["y"]]}), "column 'a' holds list<element: string>"),
    "objects": (pa.table({"a": [{"b": 1}]}), "column 'a' holds struct"),
    "bytes": (pa.table({"a": [b"\xff"]}), "column 'a' holds binary"),
    "one name twice": (pa.table([[1], [2]], names=["a", "a"]), "two columns of one name"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_held_is_refused_at_once(name: str, tmp_path: Path) -> None:
    table, told = TABLES[name]
    pq.write_table(table, tmp_path / "t.parquet")
    start = time.monotonic()
    with pytest.raises(UsageError, match=told) as raised:
        read_parquet(tmp_path / "t.parquet", "trials")
    assert time.monotonic() - start < 5
    assert str(raised.value).isprintable()


def test_more_columns_than_the_metadata_may_list_are_refused(tmp_path: Path) -> None:
    """By the size of the list of them, before a million objects are made."""
    pq.write_table(pa.table({f"c{n}": [1] for n in range(21_000)}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"cannot be read as Parquet \(.*(limit|Exceeded)"):
        read_parquet(tmp_path / "t.parquet", "trials")


def test_text_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    broken = pa.array([b"\xdf\xff"]).cast(pa.large_binary()).view(pa.large_string())
    pq.write_table(pa.table({"a": broken}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"cannot be read as Parquet \(.*UTF8"):
        read_parquet(tmp_path / "t.parquet", "trials")


def test_a_plain_table_is_read_as_pandas_reads_it(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"text": ["a", None, "b"], "n": [1, 2, 3], "x": [0.5, None, 1.0], "b": [True, False, True]}
    )
    frame["kind"] = pd.Categorical(["u", "v", "u"])
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    wanted = pd.read_parquet(tmp_path / "t.parquet").astype({"kind": "str"})
    found = read_parquet(tmp_path / "t.parquet", "trials")
    pd.testing.assert_frame_equal(found.astype({"kind": "str"}), wanted)
    assert parquet_columns(tmp_path / "t.parquet", "trials") == list(frame.columns)
    one = read_parquet(tmp_path / "t.parquet", "trials", ["n", "gone"])
    assert list(one.columns) == ["n"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"pair,arm\na,b\0c\n", "a NUL at byte 12"),
        ("pair,arm\ncaf\u00e9,x\n".encode("latin-1"), "not UTF-8"),
        ("pair,arm\na,b\n".encode("utf-16"), "NUL"),
        (b"a," * 10_000 + b"a\n", "10,001 columns"),
        (b"  \n", "empty"),
        (b'pair,arm\n"a,b\n', "cannot be read as a table"),
    ],
    ids=["nul", "latin-1", "utf-16", "columns", "empty", "open-quote"],
)
def test_a_csv_that_is_none_is_refused(data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(UsageError, match=told):
        read_csv(tmp_path / "t.csv", ",", "a table")


def test_a_row_longer_than_any_text_is_named(tmp_path: Path) -> None:
    rows = f"pair,text\na,b\nc,{'x' * (MOST_TEXT + 1)}\n"
    (tmp_path / "t.csv").write_text(rows)
    frame = read_csv(tmp_path / "t.csv", ",", "a table")
    with pytest.raises(UsageError, match=r"1,048,577 characters in 'text' of row 2, expected at"):
        check_texts(frame, tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfpair,arm\na,b\n")
    assert list(read_csv(tmp_path / "t.csv", ",", "a table").columns) == ["pair", "arm"]
