"""What the exports for all trainers have in common.

Belongs here: what an export is made from, what a trainer's file has to provide, writing rows as Parquet. Does
not belong here: any one trainer (trl, verl), whole folders and their proof (export).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.domain.errors import SaerlError

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
    spec: dict[str, Any] = field(default_factory=dict)
    """The version's spec in its canonical form, whose digest is `spec_digest`."""
    pairs: pl.DataFrame | None = None
    """Table preference_pairs of the version, for trainers that learn from pairs."""


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


PLACE_COLUMNS = ("prompt_id", "epoch", "step", "slot", "cluster_id", "difficulty", "topic", "is_padding", "extra")
"""What a row says about itself beside prompt and answer, wherever the trainer lets it: who it is, where it stands in
the order and why, and the further fields of the source row as a JSON object."""


def place_fields() -> list[tuple[str, pa.DataType]]:
    """`PLACE_COLUMNS` with their types in a file."""
    import pyarrow as pa

    types = {"cluster_id": pa.int64(), "difficulty": pa.float64(), "is_padding": pa.bool_()}
    types |= dict.fromkeys(("epoch", "step", "slot"), pa.int64())
    return [(name, types.get(name, pa.string())) for name in PLACE_COLUMNS]


def message_list() -> pa.DataType:
    """Chat messages as they are in a file."""
    import pyarrow as pa

    return pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def require_answers(request: ExportRequest, trainer: str, wanted_as: str) -> None:
    """Refuses rows that the trainer, or what it rewards by, would fail on in the middle of a training.

    Args:
        request: What is to be written.
        trainer: Name of the trainer.
        wanted_as: What the trainer takes the answer for.

    Raises:
        SaerlError: `answer_missing`, naming the first prompt.
    """
    missing = request.rows.filter(pl.col("answer").is_null())["prompt_id"].unique(maintain_order=True)
    if missing.is_empty():
        return
    others = f" and {len(missing) - 1} others have" if len(missing) > 1 else " has"
    raise SaerlError(
        "answer_missing",
        f"Prompt {missing[0]}{others} no answer, which {trainer} needs as {wanted_as}.",
        where=request.key,
        remedy=f"Name the field with the answer in data.answer, or take '{trainer}' out of exports.trainers.",
    )


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
