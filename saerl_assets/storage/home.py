"""The home: one folder that holds everything the platform keeps.

Belongs here: which folder it is and what lies where in it. Does not belong here: what is in those files.

    <home>/warehouse.duckdb     the tables, unless they are in a lake
    <home>/warehouse.lock       who is writing to them
    <home>/warehouse.toml       which lake, where there is one: warehouse = "ducklake:..." and data_path
    <home>/dagster/             DAGSTER_HOME: runs, events, logs, dagster.yaml
    <home>/artifacts/           SAEs, centroids, probes: folders named by their digest
    <home>/work/<version>/      shards, activations and checkpoints of unfinished runs
    <bucket>/artifacts/, work/  the same artefacts and shards where SAERL_BUCKET names a bucket, for other machines
    <home>/exports/<manifest>/  trainer files
    <home>/trials/<version>/    evaluations of trainings, a folder for each trial
    <home>/reports/             one HTML page per version
    <home>/inbox/               data files that become versions, labels/<version>/ files that are added to one
    <home>/notes/               what sensors may know of a version without opening the warehouse
"""

from __future__ import annotations

import os
import shutil
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.buckets import Bucket
from saerl_assets.storage.lake_address import LakeAddress, is_lake
from saerl_assets.storage.package_data import dagster_yaml

FOLDER_NAME = ".saerl"


@dataclass(frozen=True)
class Home:
    """The places below one root folder."""

    root: Path
    warehouse_file: Path | None = None
    """The DuckDB file where it lies elsewhere, such as on a faster disk."""
    lake: LakeAddress | None = None
    """The lake that the tables are in, in place of a file."""
    bucket: Bucket | None = None
    """Where artefacts and unfinished shards are kept too, so that another machine finds them."""

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.warehouse_file or self.root / "warehouse.duckdb"

    @property
    def warehouse_lock(self) -> Path:
        """The file whose lock guards the DuckDB file, beside it: all homes that name one file wait for one another."""
        return self.warehouse.with_suffix(".lock")

    @property
    def warehouse_place(self) -> str:
        """Where the tables are, as a person reads it; no secret is in it."""
        return self.lake.text if self.lake else str(self.warehouse)

    @property
    def warehouse_settings(self) -> Path:
        """The file that names the lake."""
        return self.root / "warehouse.toml"

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
                self.warehouse.parent if self.lake is None else self.root,
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


def find_home(
    explicit: str | Path | None = None, warehouse: str | Path | None = None, data_path: str = "", bucket: str = ""
) -> Home:
    """The home to use: `explicit`, else `SAERL_HOME`, else the nearest `.saerl` upwards, else `.saerl` here.

    Args:
        explicit: A folder, if one is named.
        warehouse: A DuckDB file that does not lie in the home, or a lake, `ducklake:...`. By default SAERL_WAREHOUSE,
            else what the home's `warehouse.toml` names, else the file in the home.
        data_path: Where a lake's files are, with `warehouse`; by default SAERL_DATA_PATH, or as the lake was made.
        bucket: URL below which artefacts and unfinished shards are kept too; by default SAERL_BUCKET, else nowhere.

    Raises:
        SaerlError: `lake_invalid`, `bucket_unsupported`, `setting_invalid`.
    """
    root, place = _root(explicit), bucket or os.environ.get("SAERL_BUCKET", "")
    home = Home(root, bucket=Bucket.parse(place, root) if place else None)
    if not warehouse:
        warehouse, data_path = os.environ.get("SAERL_WAREHOUSE", ""), os.environ.get("SAERL_DATA_PATH", "")
    if not warehouse and home.warehouse_settings.is_file():
        warehouse, data_path = _named_in(home.warehouse_settings)
    if is_lake(str(warehouse or "")):
        return replace(home, lake=LakeAddress.parse(str(warehouse), data_path, home.root))
    return replace(home, warehouse_file=Path(warehouse).expanduser().resolve()) if warehouse else home


def _named_in(settings: Path) -> tuple[str, str]:
    """The warehouse and the data path that a file of settings names."""
    try:
        named = tomllib.loads(settings.read_text(encoding="utf-8"))
        problem = "" if set(named) <= {"warehouse", "data_path"} else "it has other keys than warehouse and data_path"
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem:
        remedy = 'Write warehouse = "ducklake:..." and data_path = "...", or delete the file.'
        raise SaerlError("setting_invalid", f"{problem}.", where=str(settings), remedy=remedy)
    return str(named.get("warehouse", "")), str(named.get("data_path", ""))


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
