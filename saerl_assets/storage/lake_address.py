"""Where a lake is: its catalogue and its data, in one line of a setting.

Belongs here: reading `ducklake:...` and refusing secrets in it. Does not belong here: connecting.

    ducklake:postgres:dbname=lake host=db.example.org user=saerl    many machines, many writers
    ducklake:FILE                                                   a DuckDB file as the catalogue, one machine

Passwords and keys stay in the environment: PGPASSWORD or a pgpass file, AWS_ACCESS_KEY_ID and what belongs to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saerl_assets.domain.errors import SaerlError

PREFIX = "ducklake:"
_EXAMPLE = "Write ducklake:postgres:dbname=lake host=db.example.org user=saerl, or ducklake:FILE."
_SECRET = re.compile(r"(?i)\b(?:ssl)?password\s*=|//[^/@]*:[^/@]*@|secret|access_?key|[?&](?:key|token|sig)")
_OTHER_CATALOGUE = re.compile(r"^(?:sqlite|mysql|md|motherduck|quack|https?)(?=:)")
_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]+://")
_DATA = ("s3://", "gs://", "gcs://")


def is_lake(warehouse: str) -> bool:
    """Whether a setting names a lake and not a file."""
    return warehouse.startswith(PREFIX)


def holds_secret(setting: str) -> bool:
    """Whether a setting seems to hold a password or a key, which belong into the environment."""
    return _SECRET.search(setting) is not None


@dataclass(frozen=True)
class LakeAddress:
    """A catalogue and the folder or bucket of its Parquet files."""

    kind: Literal["postgres", "file"]
    catalogue: str
    """libpq's connection string without a password, or the path of a DuckDB file."""
    data_path: str
    """A folder or an URL that ends in a slash; empty: as the catalogue recorded it when the lake was made."""

    @classmethod
    def parse(cls, text: str, data_path: str, folder: Path) -> LakeAddress:
        """Reads a setting.

        Args:
            text: As in the module's description.
            data_path: Folder, `s3://bucket/prefix` or `gs://bucket/prefix`; empty for what the catalogue says.
            folder: Where relative paths start.

        Raises:
            SaerlError: `lake_invalid`; what was written is not repeated where it may hold a secret.
        """
        named = text.removeprefix(PREFIX).strip()
        for setting, value in (("warehouse", named), ("data_path", data_path)):
            if holds_secret(value):
                problem = "It holds a password or a key, which would end up in settings, records and logs."
                remedy = "Take it out and export PGPASSWORD, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
                raise SaerlError("lake_invalid", problem, where=setting, remedy=remedy)
        other = _OTHER_CATALOGUE.match(named)
        if other or named in {"", "postgres:"}:
            problem = f"A catalogue of {other[0]} is not known here." if other else "It names no catalogue."
            raise SaerlError("lake_invalid", problem, where=f"warehouse = {text!r}", remedy=_EXAMPLE)
        data = _data_folder(data_path.strip(), folder)
        if named.startswith("postgres:"):
            return cls("postgres", named.removeprefix("postgres:"), data)
        file = (folder / Path(named.removeprefix("duckdb:")).expanduser()).resolve()
        return cls("file", str(file), data or f"{file}.files/")

    @property
    def text(self) -> str:
        """The setting again, paths absolute."""
        return f"{PREFIX}postgres:{self.catalogue}" if self.kind == "postgres" else f"{PREFIX}{self.catalogue}"

    @property
    def is_remote(self) -> bool:
        """Whether its data is in an object store."""
        return _REMOTE.match(self.data_path) is not None

    def with_option(self, name: str, value: str) -> str:
        """The connection string with one more of libpq's options; what is written there already wins."""
        if re.search(rf"\b{name}\s*=", self.catalogue):
            return self.catalogue
        if _REMOTE.match(self.catalogue):
            return f"{self.catalogue}{'&' if '?' in self.catalogue else '?'}{name}={value}"
        return f"{self.catalogue} {name}={value}"


def _data_folder(text: str, folder: Path) -> str:
    if not text:
        return ""
    if _REMOTE.match(text):
        if not text.startswith(_DATA):
            remedy = f"Give a folder, or an URL that begins with {', '.join(_DATA)}."
            raise SaerlError("lake_invalid", "No such kind of store is known.", where="data_path", remedy=remedy)
        return text.rstrip("/") + "/"
    return str((folder / Path(text).expanduser()).resolve()) + "/"
