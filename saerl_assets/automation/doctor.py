"""What would keep a run from working, looked for before it starts.

Belongs here: findings about this machine and home. Does not belong here: repairing them.
"""

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.buckets import Bucket
from saerl_assets.storage.locks import holder, is_locked

PACKAGES = (
    "dagster",
    "dagster-webserver",
    "duckdb",
    "polars",
    "scikit-learn",
    "torch",
    "transformers",
    "sae-lens",
)
OPTIONAL_PACKAGES = ("reasoning-gym", "datasets")
LEAST_FREE_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it is fine, what it is, what was found."""

    fine: bool
    what: str
    found: str


def examine(home: HomeResource, compute: ComputeResource) -> list[Finding]:
    """Looks at everything that a run needs."""
    return [
        *_packages(),
        _tried("device", compute.describe),
        *_home(home),
        *_models(home, compute),
    ]


def _packages() -> Iterator[Finding]:
    for name in (*PACKAGES, *OPTIONAL_PACKAGES):
        try:
            yield Finding(fine=True, what=name, found=importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(fine=name in OPTIONAL_PACKAGES, what=name, found=f"not installed: pip install {name}")


def _home(home: HomeResource) -> Iterator[Finding]:
    try:
        place = home.open()
    except SaerlError as error:
        yield Finding(fine=False, what="home", found=str(error))
        return
    may_write = os.access(place.root, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    yield Finding(fine=may_write, what="home", found=str(place.root))
    free = shutil.disk_usage(place.root).free
    yield Finding(fine=free >= LEAST_FREE_BYTES, what="free disk", found=f"{free / 1e9:.1f} GB")
    if place.bucket is not None:
        yield _tried("bucket", partial(_answers, place.bucket))
    if place.lake is not None:
        yield _tried("warehouse", partial(_lake, home))
        return
    if is_locked(place.warehouse_lock):
        yield Finding(fine=True, what="warehouse lock", found=f"held by {holder(place.warehouse_lock) or 'a reader'}")
        return
    yield Finding(fine=True, what="warehouse lock", found="free")
    if not place.warehouse.exists():
        yield Finding(fine=True, what="warehouse", found="none yet: saerl register SPEC.toml")
        return
    held_by = home.warehouse().held_by_another_program()
    if held_by:
        yield Finding(fine=False, what="warehouse", found=f"{held_by} Close it there; runs wait until then.")
        return
    yield _tried("warehouse", lambda: f"{home.warehouse().database.size()}, {_versions(home)}")


def _answers(bucket: Bucket) -> str:
    bucket.has("artifacts")
    return bucket.url


def _lake(home: HomeResource) -> str:
    warehouse = home.warehouse()
    place = warehouse.database.place
    if not warehouse.exists():
        return f"{place}: none yet: saerl register SPEC.toml"
    return f"{place}: {warehouse.database.size()}, {_versions(home)}"


def _versions(home: HomeResource) -> str:
    return f"versions: {', '.join(home.catalog().keys()) or 'none'}"


def _models(home: HomeResource, compute: ComputeResource) -> Iterator[Finding]:
    """The reader of every version, without downloading anything; none while another process writes."""
    try:
        place = home.open()
        if (place.lake is None and is_locked(place.warehouse_lock)) or home.warehouse().held_by_another_program():
            return
        keys = home.catalog().keys()
        readers = {(version.spec.reader.model, version.folder): version for version in map(home.version, keys)}
    except SaerlError as error:
        yield Finding(fine=False, what="versions", found=str(error))
        return
    for source, folder in sorted(readers):
        version = readers[source, folder]
        yield _tried(f"model {source.partition('#')[0]}", partial(compute.where_is, version))


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(fine=True, what=what, found=look())
    except SaerlError as error:
        return Finding(fine=False, what=what, found=str(error))
