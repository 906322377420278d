"""The identity of a manifest: one name for one order.

Belongs here: the digest over the rows of `batch_manifest` and `deferred_prompts`, and holding a manifest
against it, finding one by its id's beginning. Does not belong here: planning (batches).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import digest

MANIFEST_COLUMNS = ("arm", "epoch", "step", "slot", "prompt_id", "cluster_id", "difficulty", "is_padding")
"""Columns of `batch_manifest` beside `manifest_id`, in the table's order."""

DEFERRED_COLUMNS = ("arm", "epoch", "prompt_id", "reason_code", "reason")
"""Columns of `deferred_prompts` beside `manifest_id`, in the table's order."""

MIN_DIGITS = 6
"""Hex digits that name a manifest at least: a shorter beginning fits one by chance, and a typo would be obeyed."""

_GROUP = ["arm", "epoch"]
_LITTLE_ENDIAN = {pl.UInt32: "<u4", pl.Float64: "<f8", pl.Boolean: "u1"}


def manifest_digest(manifest: pl.DataFrame, deferred: pl.DataFrame, *, key: str) -> str:
    """The name of a manifest: SHA-256 in hex over all of its rows, whatever order they come in.

    It hashes bytes that no file format, library release or byte order has a part in:

    1. Rows of `batch_manifest` are taken by (arm, epoch, step, slot), those of `deferred_prompts` by (arm,
       epoch, prompt_id).
    2. Of each arm and epoch, each of the two tables gives a SHA-256 over its columns, `arm` and `epoch` left
       out, in the table's order, one after the other: 32-bit numbers as unsigned and float64 as IEEE 754,
       both little-endian, with -0.0 as 0.0; booleans as a byte; strings as the lengths of all of them in
       UTF-8 bytes, 32-bit numbers, then the bytes of all of them end to end.
    3. The result is the SHA-256 of the JSON `[key, [[arm, epoch, n_rows, digest, n_deferred, digest], ...]]`
       without spaces.

    Args:
        manifest: Columns as `MANIFEST_COLUMNS`; others are ignored.
        deferred: Columns as `DEFERRED_COLUMNS`; others are ignored.
        key: The version's key.
    """
    manifest = manifest.select(MANIFEST_COLUMNS).sort("arm", "epoch", "step", "slot")
    deferred = deferred.select(DEFERRED_COLUMNS).sort("arm", "epoch", "prompt_id")
    planned = manifest.partition_by(_GROUP, as_dict=True)
    left_out = deferred.partition_by(_GROUP, as_dict=True)
    groups = [
        group_entry(
            str(arm),
            int(epoch),
            planned.get((arm, epoch), manifest[:0]),
            left_out.get((arm, epoch), deferred[:0]),
        )
        for arm, epoch in sorted(planned.keys() | left_out.keys())
    ]
    return name_groups(groups, key=key)


def group_entry(
    arm: str, epoch: int, manifest: pl.DataFrame, deferred: pl.DataFrame
) -> tuple[str, int, int, str, int, str]:
    """Step 2 for one arm and epoch, whose rows are in order already."""
    rows = _columns_digest(manifest.select([name for name in MANIFEST_COLUMNS if name not in _GROUP]))
    left_out = _columns_digest(deferred.select([name for name in DEFERRED_COLUMNS if name not in _GROUP]))
    return arm, epoch, manifest.height, rows, deferred.height, left_out


def name_groups(groups: list[tuple[str, int, int, str, int, str]], *, key: str) -> str:
    """Step 3, from the entries by (arm, epoch)."""
    return digest([key, groups])


def manifests_named(known: Iterable[str], beginning: str) -> list[str]:
    """The manifests whose id begins like that, sorted: none for fewer than `MIN_DIGITS` digits."""
    if len(beginning) < MIN_DIGITS:
        return []
    return sorted({manifest_id for manifest_id in known if manifest_id.startswith(beginning)})


def verify_manifest(manifest: pl.DataFrame, deferred: pl.DataFrame, *, key: str) -> None:
    """Holds the rows of one manifest against its name.

    Args:
        manifest: Rows of `batch_manifest` with `manifest_id`.
        deferred: Rows of `deferred_prompts` of the same manifest.
        key: The version's key.

    Raises:
        SaerlError: `manifest_changed` if rows were edited, added or lost since it was planned.
    """
    named = sorted({*manifest["manifest_id"].unique(), *deferred["manifest_id"].unique()})
    found = manifest_digest(manifest, deferred, key=key)
    if named != [found]:
        names = ", ".join(name[:12] for name in named) or "without a name"
        raise SaerlError(
            "manifest_changed",
            f"Rows of manifest {names} were changed after it was planned: their digest is now {found[:12]}.",
            where=key,
            remedy=f"Plan it again: saerl run {key} --only batch_manifest; or use one that is intact: "
            f"saerl manifest {key}",
        )


def _columns_digest(frame: pl.DataFrame) -> str:
    """SHA-256 in hex over the columns of a frame without nulls, one after the other."""
    sha = hashlib.sha256()
    for column in frame.iter_columns():
        if column.dtype == pl.String:
            sha.update(column.str.len_bytes().to_numpy().astype("<u4").tobytes())
            sha.update(str(column.str.join("").item()).encode())
        else:
            # Adding zero turns -0.0 into 0.0 and leaves every other number as it is.
            values = column.to_numpy() + 0.0 if column.dtype == pl.Float64 else column.to_numpy()
            sha.update(values.astype(_LITTLE_ENDIAN[type(column.dtype)], copy=False).tobytes())
    return sha.hexdigest()
