"""Source files row by row: JSON Lines, JSON lists and Parquet.

Belongs here: one reader per format, streaming, in which a row that cannot be read is a row with a problem.
Does not belong here: CSV, which has more to say (csv_files), finding and checking the file (sources), what a
row means (domain).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import MAX_RAW_CHARACTERS, SourceRow

_BOM = b"\xef\xbb\xbf"
_BATCH_ROWS = 2_000
PARQUET_FAILURES = (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
"""What libraries raise for a Parquet file that is broken, or holds what they cannot read: a panic of polars is one, and
bytes that are not UTF-8 are a `ValueError`."""
_SAMPLE_BYTES = 1 << 20


def read_jsonl(path: Path) -> Iterator[SourceRow]:
    """One JSON object per line. Blank lines are no rows."""
    position = 0
    with path.open("rb") as file:
        for line, data in enumerate(file, start=1):
            content = data.removeprefix(_BOM).strip() if line == 1 else data.strip()
            if content:
                yield _json_row(position, line, content)
                position += 1


def read_json(path: Path) -> Iterator[SourceRow]:
    """A file that is one JSON list of objects, or JSON Lines by another name. A list is read as a whole.

    Raises:
        SaerlError: `source_broken` for a file that is neither.
    """
    with path.open("rb") as file:
        first_line = next((line for line in file if line.removeprefix(_BOM).strip()), b"")
    if first_line.removeprefix(_BOM).lstrip().startswith(b"["):
        yield from _list_rows(path)
    elif _json_row(0, 1, first_line.removeprefix(_BOM).strip()).value is not None:
        yield from read_jsonl(path)
    else:
        remedy = "Write the rows as a list, or as one object per line into a .jsonl file."
        raise SaerlError("source_broken", "This is no JSON list of objects.", where=str(path), remedy=remedy)


def read_parquet(path: Path) -> Iterator[SourceRow]:
    """Parquet, batch by batch within its row groups.

    Raises:
        SaerlError: `source_broken` for bytes that are no Parquet, or types that cannot be read.
    """
    position = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                batch.validate(full=True)  # text that is not UTF-8 would be found one library too late
                for value in arrow_rows(batch):
                    yield SourceRow(position, position + 1, value)
                    position += 1
    except PARQUET_FAILURES as error:
        raise parquet_error(path, error) from error


def arrow_rows(table: pa.Table | pa.RecordBatch) -> Iterator[dict[str, object]]:
    """The rows of an Arrow table as plain values: structs as objects, lists as lists."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is never a series
    yield from frame.iter_rows(named=True)


def parquet_error(path: Path, error: BaseException) -> SaerlError:
    """A Parquet file that cannot be read, in words."""
    remedy = "Write the file again; pandas, polars and datasets can."
    return SaerlError("source_broken", f"This is no readable Parquet file: {error}.", where=str(path), remedy=remedy)


def estimate_rows(path: Path, kind: str) -> int:
    """About how many rows a file has: exact for Parquet, else from the length of the first lines."""
    if kind == "parquet":
        try:
            return int(pq.read_metadata(path).num_rows)
        except PARQUET_FAILURES as error:
            raise parquet_error(path, error) from error
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    n_lines = sample.count(b"\n") + (not sample.endswith(b"\n"))
    return round(path.stat().st_size / max(len(sample), 1) * n_lines) - (kind == "csv")


def _json_row(position: int, line: int, content: bytes) -> SourceRow:
    try:
        text = content.decode()
        value = json.loads(text)
    except UnicodeDecodeError as error:
        problem = ("not_utf8", f"Byte {error.start + 1} of line {line} is not UTF-8. Save the file as UTF-8.")
    except json.JSONDecodeError as error:
        what = f"{error.msg} at column {error.colno}"
        problem = ("broken_json", f"Line {line} is not JSON: {what}. Each line must hold one JSON object.")
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond what Python reads
        problem = ("broken_json", f"Line {line} cannot be read as JSON: {error}.")
    else:
        return _object_row(position, line, value, text[:MAX_RAW_CHARACTERS])
    raw = content[: 4 * MAX_RAW_CHARACTERS].decode(errors="backslashreplace")[:MAX_RAW_CHARACTERS]
    return SourceRow(position, line, None, problem, raw)


def _object_row(position: int, line: int, value: object, raw: str) -> SourceRow:
    if isinstance(value, dict):
        return SourceRow(position, line, value, raw=raw)
    reason = 'The row is JSON, but not an object. Write a prompt as {"prompt": ...}.'
    return SourceRow(position, line, None, ("not_an_object", reason), raw)


def _list_rows(path: Path) -> Iterator[SourceRow]:
    try:
        rows = json.loads(path.read_bytes().removeprefix(_BOM))
    except (ValueError, RecursionError) as error:
        remedy = "Correct it, or write one object per line into a .jsonl file: there, the good lines count."
        raise SaerlError("source_broken", f"This is not JSON: {error}.", where=str(path), remedy=remedy) from error
    for position, value in enumerate(rows):
        raw = "" if isinstance(value, dict) else json.dumps(value)[:MAX_RAW_CHARACTERS]
        yield _object_row(position, position + 1, value, raw)
