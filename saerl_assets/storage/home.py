"""The home: one folder that holds everything the platform keeps.

Belongs here: which folder it is and what lies where in it. Does not belong here: what is in those files.

    <home>/warehouse.duckdb     the tables
    <home>/warehouse.lock       who is writing to them
    <home>/dagster/             DAGSTER_HOME: runs, events, logs, dagster.yaml
    <home>/artifacts/           SAEs, centroids, probes: folders named by their digest
    <home>/work/<version>/      shards, activations and checkpoints of unfinished runs
    <home>/exports/<manifest>/  trainer files
    <home>/trials/<version>/    evaluations of trainings, a folder for each trial
    <home>/reports/             one HTML page per version
    <home>/inbox/               data files that become versions, labels/<version>/ files that are added to one
    <home>/notes/               what sensors may know of a version without opening the warehouse
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
    warehouse_file: Path | None = None
    """The DuckDB file where it lies elsewhere, such as on a faster disk."""

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.warehouse_file or self.root / "warehouse.duckdb"

    @property
    def warehouse_lock(self) -> Path:
        """The file whose lock guards the DuckDB file, beside it: all homes that name one file wait for one another."""
        return self.warehouse.with_suffix(".lock")

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

    @property
    def inbox(self) -> Path:
        """Where data files and late labels are put that are to be taken in."""
        return self.root / "inbox"

    @property
    def notes(self) -> Path:
        """One small file per version, for sensors."""
        return self.root / "notes"

    def work(self, dataset_version: str) -> Path:
        """Where an unfinished run of a version keeps what it has done so far."""
        return self.root / "work" / dataset_version

    def trials(self, dataset_version: str) -> Path:
        """What the trainings of a version's trials came to, and the orders that they followed."""
        return self.root / "trials" / dataset_version

    def relative(self, path: Path) -> str:
        """`path` as tables store it: below the root, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def create(self) -> Home:
        """Makes the folders and Dagster's settings where they are missing; changes nothing that is there.

        Raises:
            SaerlError: `home_not_writable`.
        """
        try:
            for folder in (
                self.root,
                self.warehouse.parent,
                self.dagster,
                self.artifacts,
                self.exports,
                self.reports,
                self.inbox,
                self.inbox / "labels",
            ):
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


def find_home(explicit: str | Path | None = None, warehouse_file: str | Path | None = None) -> Home:
    """The home to use: `explicit`, else `SAERL_HOME`, else the nearest `.saerl` upwards, else `.saerl` here.

    Args:
        explicit: A folder, if one is named.
        warehouse_file: The DuckDB file, if it does not lie in the home.
    """
    return Home(_root(explicit), Path(warehouse_file).expanduser().resolve() if warehouse_file else None)


def _root(explicit: str | Path | None) -> Path:
    named = explicit or os.environ.get("SAERL_HOME")
    if named:
        return Path(named).expanduser().resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER_NAME).is_dir():
            return folder / FOLDER_NAME
    return here / FOLDER_NAME


def model_cache() -> Path:
    """Where models are kept that several homes can share: `$XDG_CACHE_HOME/saerl`, by default `~/.cache/saerl`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "saerl"
