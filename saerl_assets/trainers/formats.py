"""What the exports for all trainers have in common.

Belongs here: what an export is made from, what a trainer's file has to provide, writing rows as Parquet. Does
not belong here: any one trainer (trl, verl), whole folders and their proof (export).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

README_FILE = "README.md"
"""What a person should know, the traps first of all."""

_ROWS_AT_ONCE = 20_000
"""Rows of one row group: little memory, and far from the 2 GB that one column of text can hold at once."""


@dataclass(frozen=True)
class ExportRequest:
    """One arm of one manifest, and what it came from."""

    rows: pl.DataFrame
    """One row per slot: epoch, step, slot, prompt_id, messages (JSON list of `role` and `content`), is_chat,
    answer or null, topic or null, cluster_id, difficulty, extra (JSON object), is_padding."""
    manifest_id: str
    key: str
    """The version."""
    arm: str
    batch_size: int
    spec_digest: str
    digests: dict[str, str]
    """What the order was made from: source, SAE, reader and so on."""


@dataclass(frozen=True)
class TrainerFormat:
    """A trainer that can be exported to. One file per trainer holds one of these."""

    name: str
    """As in `exports.trainers` of the spec."""
    data_file: str
    """The file that the trainer reads."""
    settings_file: str
    """The file with the settings that keep the order."""
    write: Callable[[ExportRequest, Path], None]
    """Writes the data, the settings and the README into a folder; the request's rows are whole batches, in
    order."""
    read_order: Callable[[Path], pl.DataFrame]
    """Reads epoch, step, slot and prompt_id of every row back from the data file."""


def decode_messages() -> pl.Expr:
    """The column `messages` as a list of structs with role and content."""
    message = pl.Struct({"role": pl.String, "content": pl.String})
    return pl.col("messages").str.json_decode(pl.List(message))


def write_parquet(rows: pl.DataFrame, schema: pa.Schema, path: Path) -> None:
    """Writes rows with exactly these types; the same rows give the same bytes.

    Polars' own writer would store text as large strings, which do not concatenate with other data sets in
    `datasets`.
    """
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in rows.select(schema.names).iter_slices(_ROWS_AT_ONCE):
            writer.write_table(part.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))
