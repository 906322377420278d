"""Shards: what a long extraction has finished so far.

Belongs here: writing and finding the Parquet files of one shard. Does not belong here: how their rows are computed.

A shard is a folder that appears whole. Each is a pure function of its texts, so an extraction that is killed anywhere
computes only the missing ones when it is run again. Their rows are loaded into the warehouse last, and then they go.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from saerl_assets.disk import new_folder
from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.buckets import Bucket
from saerl_assets.storage.home import Home


@dataclass(frozen=True)
class ShardFiles:
    """The finished files of one table, to be loaded and then removed; `n_reused` rows were there before."""

    table: str
    files: tuple[Path, ...]
    n_rows: int
    n_reused: int


class ShardStore:
    """The shards of one extraction in a folder of their own, whose name every file of a shard carries inside.

    Args:
        folder: The folder.
        bucket: Where they are kept too, under the name `remote`: another machine goes on with them.
        remote: Their name in the bucket.
    """

    def __init__(self, folder: Path, bucket: Bucket | None = None, remote: str = "") -> None:
        self.folder = folder
        self._bucket, self._remote = bucket, remote

    @classmethod
    def of(cls, home: Home, folder: Path) -> ShardStore:
        """Those in a folder of a home, and in its bucket where it has one."""
        return cls(folder, home.bucket, home.relative(folder))

    def has(self, shard_id: str, tables: list[str]) -> bool:
        """Whether the shard is complete and readable. One that is damaged is removed, so that it is computed again."""
        folder = self.folder / shard_id
        if not folder.is_dir() and not (shard_id in self._elsewhere and self._fetched(shard_id)):
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
        names = {folder.name for folder in self.folder.glob("[!.]*")} if self.folder.is_dir() else set()
        return [name for name in sorted(names | self._elsewhere) if self.has(name, tables)]

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

        if self._bucket is not None:
            self._bucket.put(f"{self._remote}/{shard_id}", self.folder / shard_id)

    def files(self, table: str, shard_ids: list[str]) -> tuple[Path, ...]:
        """The files of one table, in the order of the shards."""
        return tuple(self.folder / shard_id / f"{table}.parquet" for shard_id in shard_ids)

    def _mark(self, shard_id: str) -> dict[bytes, bytes]:
        return {b"extraction": self.folder.name.encode(), b"shard_id": shard_id.encode()}

    def remove(self) -> None:
        """Removes all shards of this extraction."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._bucket is not None:
            self._bucket.remove(self._remote)

    @cached_property
    def _elsewhere(self) -> set[str]:
        """Shards that the bucket had when this began."""
        return set() if self._bucket is None else self._bucket.names(self._remote)

    def _fetched(self, shard_id: str) -> bool:
        """Fetches a shard; one that is damaged there is made again."""
        if self._bucket is None:
            return False
        name = f"{self._remote}/{shard_id}"
        try:
            return self._bucket.fetch(name, self.folder / shard_id)
        except SaerlError as error:
            if error.code != "bucket_changed":
                raise
            self._bucket.remove(name)
            return False
