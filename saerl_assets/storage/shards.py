"""Shards: what a long extraction has finished so far.

Belongs here: writing and finding the Parquet files of one shard. Does not belong here: how their rows are computed.

A shard is a folder that appears whole. Each is a pure function of its texts, so an extraction that is killed anywhere
computes only the missing ones when it is run again. Their rows are loaded into the warehouse last, and then they go.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from saerl_assets.disk import new_folder


@dataclass(frozen=True)
class ShardFiles:
    """The finished files of one table, to be loaded and then removed; `n_reused` rows were there before."""

    table: str
    files: tuple[Path, ...]
    n_rows: int
    n_reused: int


class ShardStore:
    """The shards of one extraction in a folder of their own, whose name every file of a shard carries inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, shard_id: str, tables: list[str]) -> bool:
        """Whether the shard is complete and readable. One that is damaged is removed, so that it is computed again."""
        folder = self.folder / shard_id
        if not folder.is_dir():
            return False
        try:
            for table in tables:
                found = pq.read_table(folder / f"{table}.parquet", page_checksum_verification=True)
                if found.schema.metadata != self._mark(shard_id):
                    raise pa.ArrowInvalid("another shard's file")
        except (OSError, pa.ArrowException):
            shutil.rmtree(folder)
            return False
        return True

    def finished(self, tables: list[str]) -> list[str]:
        """The ids of all shards that are complete and readable, however they were planned."""
        folders = sorted(self.folder.glob("[!.]*")) if self.folder.is_dir() else []
        return [folder.name for folder in folders if self.has(folder.name, tables)]

    def write(self, shard_id: str, tables: Mapping[str, pa.Table]) -> None:
        """Writes one shard; it appears whole or not at all."""
        with new_folder(self.folder / shard_id) as folder:
            for name, rows in tables.items():
                marked = rows.replace_schema_metadata(self._mark(shard_id))
                pq.write_table(
                    marked,
                    folder / f"{name}.parquet",
                    compression="zstd",
                    compression_level=1,
                    write_page_checksum=True,
                )

    def files(self, table: str, shard_ids: list[str]) -> tuple[Path, ...]:
        """The files of one table, in the order of the shards."""
        return tuple(self.folder / shard_id / f"{table}.parquet" for shard_id in shard_ids)

    def _mark(self, shard_id: str) -> dict[bytes, bytes]:
        return {b"extraction": self.folder.name.encode(), b"shard_id": shard_id.encode()}

    def remove(self) -> None:
        """Removes all shards of this extraction."""
        shutil.rmtree(self.folder, ignore_errors=True)
