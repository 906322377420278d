"""The home: one folder that holds everything the platform keeps.

Belongs here: which folder it is and what lies where in it. Does not belong here: what is in those files.

    <home>/warehouse.duckdb     the tables
    <home>/warehouse.lock       who is writing to them
    <home>/dagster/             DAGSTER_HOME: runs, events, logs, dagster.yaml
    <home>/artifacts/           SAEs, centroids, probes: folders named by their digest
    <home>/work/<version>/      shards, activations and checkpoints of unfinished runs
    <home>/exports/<manifest>/  trainer files
    <home>/reports/             one HTML page per version
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.package_data import dagster_yaml

FOLDER_NAME = ".saerl"


@dataclass(frozen=True)
class Home:
    """The places below one root folder."""

    root: Path

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.root / "warehouse.duckdb"

    @property
    def warehouse_lock(self) -> Path:
        """The file whose lock guards the DuckDB file."""
        return self.root / "warehouse.lock"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME."""
        return self.root / "dagster"

    @property
    def artifacts(self) -> Path:
        """Folders named by kind and digest."""
        return self.root / "artifacts"

    @property
    def exports(self) -> Path:
        """Trainer files, by manifest."""
        return self.root / "exports"

    @property
    def reports(self) -> Path:
        """HTML pages, by version."""
        return self.root / "reports"

    def work(self, dataset_version: str) -> Path:
        """Where an unfinished run of a version keeps what it has done so far."""
        return self.root / "work" / dataset_version

    def relative(self, path: Path) -> str:
        """`path` as tables store it: below the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def create(self) -> Home:
        """Makes the folders and Dagster's settings where they are missing; changes nothing that is there.

        Raises:
            SaerlError: `home_not_writable`.
        """
        try:
            for folder in (self.root, self.dagster, self.artifacts, self.exports, self.reports):
                folder.mkdir(parents=True, exist_ok=True)
            settings = self.dagster / "dagster.yaml"
            if not settings.exists():
                shutil.copyfile(dagster_yaml(), settings)
        except OSError as error:
            raise SaerlError(
                "home_not_writable",
                f"The home cannot be written: {error.strerror or error}.",
                where=str(self.root),
                remedy="Choose another folder with --home or SAERL_HOME, or make room and give write permission.",
            ) from error
        return self


def find_home(explicit: str | Path | None = None) -> Home:
    """The home to use: `explicit`, else `SAERL_HOME`, else the nearest `.saerl` upwards, else `.saerl` here."""
    named = explicit or os.environ.get("SAERL_HOME")
    if named:
        return Home(Path(named).expanduser().resolve())
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER_NAME).is_dir():
            return Home(folder / FOLDER_NAME)
    return Home(here / FOLDER_NAME)


def model_cache() -> Path:
    """Where models are kept that several homes can share: `$XDG_CACHE_HOME/saerl`, by default `~/.cache/saerl`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "saerl"
