"""Tables that others wrote, Parquet and CSV: their size is known before memory is given to them.

A file of some megabytes may say that it is a table of gigabytes. Of Parquet the metadata is read
first, then the columns that are wanted, texts as a dictionary, so that one that stands in many rows
takes its place once until its full size is known. What is wrong is one UsageError.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kv_claims.errors import UsageError
from kv_claims.files.reading import check_file, read_bytes, shown, unquoted

MOST_ROWS = 5_000_000
MOST_COLUMNS = 10_000
MOST_BYTES = 2 * 2**30
"""Of a table in memory."""
MOST_CSV_BYTES = 256 * 2**20
MOST_TEXT = 2**20
"""Characters of one field. A generation of 100 tokens has 500."""


def parquet_columns(path: Path, expected: str) -> list[str]:
    """The names of a Parquet file's columns. Raises UsageError as `read_parquet` does."""
    return list(_opened(path, expected).schema_arrow.names)


def read_parquet(path: Path, expected: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns of a Parquet file, all or those that are named and are there; plain values only.

    expected: what the file should be, in words. Raises UsageError for a file that is none, is too
    large once it is unpacked, or has lists or structures in a column that is wanted.
    """
    file = _opened(path, expected)
    schema = file.schema_arrow
    names = [name for name in schema.names if columns is None or name in columns]
    if len(set(names)) < len(names):
        raise UsageError(f"{path}: two columns of one name, expected {expected}")
    texts = []
    for name in names:
        kind = schema.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise UsageError(
                f"{path}: column {shown(name)} holds {unquoted(str(kind))}, expected plain values"
            )
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts.append(name)
    try:
        table = pq.ParquetFile(path, read_dictionary=texts).read(columns=names)
        table.validate(full=True)  # its texts are UTF-8, its dictionaries have what rows name
        _check_texts(table, path)
        for number, name in enumerate(table.column_names):
            column = table.column(number)
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
                table = table.set_column(number, name, column)
        # The file's own word on how pandas held it is not asked.
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError, TypeError, MemoryError) as error:
        raise _unreadable(path, error) from error
    return frame


def read_csv(path: Path, separator: str, expected: str) -> pd.DataFrame:
    """Everything in a CSV file as text. Raises UsageError for a file that cannot be read so."""
    data = read_bytes(path, expected, most=MOST_CSV_BYTES)
    if not data.strip():
        raise UsageError(f"{path}: empty, expected a header and one row a trial")
    if b"\0" in data:
        raise UsageError(f"{path}: a NUL at byte {data.index(0)}, expected text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
    if (columns := text.partition("\n")[0].count(separator) + 1) > MOST_COLUMNS:
        raise UsageError(f"{path}: {columns:,} columns, expected at most {MOST_COLUMNS:,}")
    try:
        return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, MemoryError, OverflowError) as error:
        raise _unreadable(path, error) from error


def read_json(path: Path, expected: str, *, lines: bool) -> pd.DataFrame:
    """Records of a JSON file, a row each: a list of them, or one a line. What is nested in a record
    has its path for a name, as in `scores.loglik`.

    Raises UsageError for a file that cannot be read so, and lists in a record.
    """
    data = read_bytes(path, expected, most=MOST_CSV_BYTES)
    try:
        text = data.decode("utf-8-sig")
        # Python's reader, as it takes the NaN that Python's writer makes.
        records = (
            [json.loads(line) for line in text.splitlines() if line.strip()] if lines else None
        )
        records = json.loads(text) if records is None else records
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise UsageError(f"{path}: expected a list of records, each a mapping")
    frame = pd.json_normalize(records)
    if len(frame.columns) > MOST_COLUMNS or len(frame) > MOST_ROWS:
        raise UsageError(
            f"{path}: {len(frame):,} rows, {len(frame.columns):,} columns, expected at most "
            f"{MOST_ROWS:,} and {MOST_COLUMNS:,}"
        )
    return frame


def check_texts(frame: pd.DataFrame, path: Path) -> None:
    """Raise UsageError for a text that is longer than any generation could be."""
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            lengths = frame[name].dropna().astype(str).str.len()
            if len(lengths) and (longest := int(lengths.max())) > MOST_TEXT:
                rows = lengths.index.to_numpy(dtype=int)
                row = int(rows[lengths.to_numpy().argmax()]) + 1
                raise UsageError(
                    f"{path}: {longest:,} characters in {shown(str(name))} of row "
                    f"{row}, expected at most {MOST_TEXT:,}"
                )


def _opened(path: Path, expected: str) -> pq.ParquetFile:
    """A Parquet file whose metadata was read and says that it can be held."""
    check_file(path, expected, most=MOST_BYTES)
    try:
        # Lists in the metadata: one entry a column, one a row group.
        file = pq.ParquetFile(path, thrift_container_size_limit=2 * MOST_COLUMNS)
        found = file.metadata
        size = sum(found.row_group(n).total_byte_size for n in range(found.num_row_groups))
        # Repeated values take no room in the file: eight bytes each in memory.
        size = max(size, 8 * found.num_rows * found.num_columns)
        _ = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError, TypeError, MemoryError) as error:
        raise _unreadable(path, error) from error
    for what, number, most in (
        ("columns", found.num_columns, MOST_COLUMNS),
        ("rows", found.num_rows, MOST_ROWS),
        ("MB unpacked", size // 2**20, MOST_BYTES // 2**20),
    ):
        if not 0 <= number <= most:
            raise UsageError(f"{path}: {number:,} {what}, expected at most {most:,}")
    return file


def _check_texts(table: pa.Table, path: Path) -> None:
    """Raise UsageError where the texts of a table would not fit once each row has its own."""
    size = 0
    for column in table.columns:
        if pa.types.is_dictionary(column.type) and not pa.types.is_primitive(
            column.type.value_type
        ):
            for chunk in column.chunks:
                lengths = pc.binary_length(chunk.dictionary)
                size += pc.sum(pc.take(lengths, chunk.indices)).as_py() or 0
    if size > MOST_BYTES:
        raise UsageError(
            f"{path}: {size // 2**20:,} MB of text unpacked, expected at most "
            f"{MOST_BYTES // 2**20:,}"
        )


def _unreadable(path: Path, error: Exception) -> UsageError:
    if isinstance(error, UsageError):
        return error
    # A parser's error quotes what it cannot read, and names what it was called with.
    told = re.sub(r"\s+", " ", str(error))
    kind = "Parquet" if isinstance(error, pa.ArrowException | OSError) else "a table"
    return UsageError(f"{path}: cannot be read as {kind} ({unquoted(told, 80)})")
