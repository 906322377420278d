"""Rows of shards in the order of their prompts.

Belongs here: from files in the order of reading to tables in the order in which rows are used. Does not belong here:
putting them into the warehouse.

Shards are random samples of texts, but features are used in the order of prompt ids, a block of prompts at a time. Laid
down in that order, a block is one short stretch of the table; laid down as they were read, every block would need a
pass over all rows, and the time to read them all would grow with their square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROWS_IN_PART = 20_000
"""Rows that are in memory at once, about: of 700 active features each, 300 MB."""


@contextmanager
def in_prompt_order(files: Sequence[Path], prompts: pl.DataFrame) -> Iterator[Iterator[pa.Table]]:
    """Sorts the rows of Parquet files by the first prompt that has their text; those that none has come last.

    When the block begins, all rows are in temporary files beside the shards, one for each part of the prompts; the
    tables then read one after the other.

    Args:
        files: Files of the same columns, `text_id` among them.
        prompts: Columns prompt_id and text_id.
    """
    texts = pl.scan_parquet(list(files)).select("text_id").collect()
    n_parts = -(-texts.height // ROWS_IN_PART)
    first_prompts = prompts.group_by("text_id").agg(pl.col("prompt_id").min())
    places = (
        texts.unique()
        .join(first_prompts, on="text_id", how="left")
        .sort("prompt_id", "text_id", nulls_last=True)
        .with_row_index("place")
    )
    with TemporaryDirectory(dir=files[0].parent.parent, prefix="order-") as name:
        folder = Path(name)
        with ExitStack() as stack:
            writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}
            for file in files:
                rows = pq.read_table(file)
                place = _places(rows, places)
                parts = place * n_parts // places.height
                for part in np.unique(parts).tolist():
                    if part not in writers:
                        writers[part] = stack.enter_context(_writer(folder / f"{part}", rows.schema))
                    writers[part].write_table(rows.take(pa.array(np.flatnonzero(parts == part))))
        yield (_sorted(folder / f"{part}", places) for part in sorted(writers))


def _writer(file: Path, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
    return pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))


def _sorted(file: Path, places: pl.DataFrame) -> pa.Table:
    """The rows of one part; those of one encoder stay together."""
    with pa.ipc.open_file(file) as reader:
        rows = reader.read_all()
    file.unlink()
    identity = pl.Series(rows.column(0).to_numpy()).rank("dense").to_numpy()
    return rows.take(pa.array(np.lexsort((_places(rows, places), identity))))


def _places(rows: pa.Table, places: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The place of each row's text."""
    found = pl.DataFrame({"text_id": rows.column("text_id").to_pylist()}).join(
        places, on="text_id", how="left", maintain_order="left"
    )
    return found["place"].to_numpy().astype(np.int64)
