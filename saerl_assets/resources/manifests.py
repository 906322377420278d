"""The manifests of a version: the current one, proven intact, and the one that a version's epochs follow.

Belongs here: reading manifests from the warehouse with what must hold of them. Does not belong here: planning (domain),
writing them for a trainer (exports).
"""

from datetime import UTC, datetime, timedelta

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.manifests import verify_manifest
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Version


def current_manifest(home: HomeResource, version: Version) -> pl.DataFrame:
    """Rows of `batch_manifest` of the version's current manifest, all arms, held against the digest that names them.

    Raises:
        SaerlError: `no_manifest`, or `manifest_changed` if somebody has edited its rows.
    """
    manifest_id = version.current_manifest_id
    if manifest_id is None:
        remedy = f"Run it first: saerl run {version.key}"
        raise SaerlError("no_manifest", f"{version.key} has no manifest yet.", remedy=remedy)
    warehouse = home.warehouse()
    rows, deferred = (warehouse.rows(name, manifest_id=manifest_id) for name in ("batch_manifest", "deferred_prompts"))
    if rows.is_empty():
        problem = f"All rows of manifest {manifest_id[:12]} are gone."
        remedy = f"Plan it again: saerl run {version.key} --only batch_manifest"
        raise SaerlError("manifest_changed", problem, where=version.key, remedy=remedy)
    verify_manifest(rows, deferred, key=version.key)
    return rows


def next_moment(home: HomeResource, key: str) -> datetime:
    """The time in UTC at which a manifest is made: later than those before it, whatever was done to the clock since.

    A version's manifests are told apart as earlier and later by it.
    """
    now = datetime.now(UTC).replace(tzinfo=None)
    before: list[datetime] = (
        home.warehouse().rows("manifests", ["created_at"], dataset_version=key)["created_at"].to_list()
    )
    return max([now, *(moment + timedelta(microseconds=1) for moment in before)])


def followed_manifest(home: HomeResource, version: Version) -> str | None:
    """The parent's current manifest, where this version goes on after its epochs; None where it starts at epoch 0.

    Raises:
        SaerlError: `no_manifest` if the parent has none, `epoch_gap` if it does not plan the epoch before the first.
    """
    first, parent = version.spec.batches.first_epoch, version.spec.parent
    if first == 0 or parent is None:
        return None
    followed = home.version(parent).current_manifest_id
    if followed is None:
        problem = f"batches.first_epoch = {first} goes on after {parent}, which has no manifest yet."
        remedy = f"Run it first: saerl run {parent}"
        raise SaerlError("no_manifest", problem, where=version.key, remedy=remedy)
    row = home.warehouse().query("SELECT max(epoch) FROM batch_manifest WHERE manifest_id = ?", [followed]).row(0)
    last = int(row[0])
    if last < first - 1:
        raise SaerlError(
            "epoch_gap",
            f"The current manifest of {parent} ends with epoch {last}, and this one would start with epoch {first}.",
            where=f"{version.key}: batches.first_epoch",
            remedy=f"Register a version with batches.first_epoch = {last + 1} or less.",
        )
    return followed
