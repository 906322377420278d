from __future__ import annotations

import hashlib
import json
import struct

import polars as pl
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.manifests import MIN_DIGITS, manifest_digest, manifests_named, verify_manifest

ROWS = [
    ("b", 0, 0, 0, "p-é", 3, -0.0, False),
    ("b", 0, 0, 1, "p-2", 1, 1.5, False),
    ("a", 1, 0, 0, "p-2", 1, 1.5, True),
]
LEFT_OUT = [("b", 0, "p-9", "tail", "left over"), ("c", 0, "p-1", "tail", "")]


def frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    manifest = pl.DataFrame(
        ROWS,
        orient="row",
        schema={
            "arm": pl.String,
            "epoch": pl.UInt32,
            "step": pl.UInt32,
            "slot": pl.UInt32,
            "prompt_id": pl.String,
            "cluster_id": pl.UInt32,
            "difficulty": pl.Float64,
            "is_padding": pl.Boolean,
        },
    )
    deferred = pl.DataFrame(
        LEFT_OUT,
        orient="row",
        schema={
            "arm": pl.String,
            "epoch": pl.UInt32,
            "prompt_id": pl.String,
            "reason_code": pl.String,
            "reason": pl.String,
        },
    )
    return manifest, deferred


def strings(values: list[str]) -> bytes:
    encoded = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(value)) for value in encoded) + b"".join(encoded)


def test_the_digest_is_what_its_description_says() -> None:
    """Written anew from the description, byte by byte."""
    empty = hashlib.sha256(b"").hexdigest()
    padded = struct.pack("<II", 0, 0) + strings(["p-2"]) + struct.pack("<Id?", 1, 1.5, True)
    whole = (
        struct.pack("<4I", 0, 0, 0, 1) + strings(["p-é", "p-2"]) + struct.pack("<2I2d2?", 3, 1, 0.0, 1.5, False, False)
    )
    tail = strings(["p-9"]) + strings(["tail"]) + strings(["left over"])
    alone = strings(["p-1"]) + strings(["tail"]) + strings([""])
    groups = [
        ["a", 1, 1, hashlib.sha256(padded).hexdigest(), 0, empty],
        ["b", 0, 2, hashlib.sha256(whole).hexdigest(), 1, hashlib.sha256(tail).hexdigest()],
        ["c", 0, 0, empty, 1, hashlib.sha256(alone).hexdigest()],
    ]
    document = json.dumps(["some-v1", groups], separators=(",", ":"))
    manifest, deferred = frames()
    assert manifest_digest(manifest, deferred, key="some-v1") == hashlib.sha256(document.encode()).hexdigest()


def test_the_order_of_rows_and_columns_does_not_matter() -> None:
    manifest, deferred = frames()
    turned = manifest.reverse().select(reversed(manifest.columns)).with_columns(dataset_version=pl.lit("some-v1"))
    assert manifest_digest(turned, deferred.reverse(), key="k-v1") == manifest_digest(manifest, deferred, key="k-v1")


@pytest.mark.parametrize(
    "column", ["arm", "epoch", "step", "slot", "prompt_id", "cluster_id", "difficulty", "is_padding"]
)
def test_every_column_of_the_manifest_counts(column: str) -> None:
    manifest, deferred = frames()
    new = {pl.String: "other", pl.Boolean: True}.get(type(manifest.schema[column]), 7)
    edited = manifest.with_columns(
        pl.when(pl.int_range(pl.len()) == 1)
        .then(pl.lit(new))
        .otherwise(pl.col(column))
        .cast(manifest.schema[column])
        .alias(column)
    )
    assert manifest_digest(edited, deferred, key="k-v1") != manifest_digest(manifest, deferred, key="k-v1")


@pytest.mark.parametrize("column", ["arm", "epoch", "prompt_id", "reason_code", "reason"])
def test_every_column_of_the_deferred_prompts_counts(column: str) -> None:
    manifest, deferred = frames()
    new = 7 if column == "epoch" else "other"
    edited = deferred.with_columns(pl.lit(new).cast(deferred.schema[column]).alias(column))
    assert manifest_digest(manifest, edited, key="k-v1") != manifest_digest(manifest, deferred, key="k-v1")


def test_the_key_counts_and_text_cannot_move_between_rows() -> None:
    manifest, deferred = frames()
    assert manifest_digest(manifest, deferred, key="k-v1") != manifest_digest(manifest, deferred, key="k-v2")
    moved = deferred.with_columns(reason_code=pl.lit("taill"), reason=pl.col("reason").str.slice(1))
    assert manifest_digest(manifest, moved, key="k-v1") != manifest_digest(manifest, deferred, key="k-v1")


def test_a_manifest_edited_by_hand_is_refused() -> None:
    manifest, deferred = frames()
    name = pl.lit(manifest_digest(manifest, deferred, key="k-v1")).alias("manifest_id")
    verify_manifest(manifest.with_columns(name), deferred.with_columns(name), key="k-v1")
    for edited, left_out in [
        (manifest[:2], deferred),
        (manifest, deferred[:1]),
        (manifest.with_columns(slot=pl.col("slot") + 1), deferred),
        (manifest[:0], deferred[:0]),
    ]:
        with pytest.raises(SaerlError, match="manifest_changed"):
            verify_manifest(edited.with_columns(name), left_out.with_columns(name), key="k-v1")
    with pytest.raises(SaerlError, match="manifest_changed"):
        verify_manifest(manifest.with_columns(name), deferred.with_columns(name), key="other-v1")


def test_a_beginning_names_the_manifests_that_have_it_and_a_short_one_names_none() -> None:
    known = ["0" * 64, "0" * MIN_DIGITS + "1" * 58, "2" * 64, "2" * 64]
    assert manifests_named(known, "2" * MIN_DIGITS) == manifests_named(known, "2" * 64) == ["2" * 64]
    assert manifests_named(known, "0" * MIN_DIGITS) == sorted(known)[:2]
    assert manifests_named(known, "0" * MIN_DIGITS + "1") == known[1:2]
    assert [manifests_named(known, "2" * n) for n in range(MIN_DIGITS)] == [[]] * MIN_DIGITS
    assert manifests_named(known, "1" * 64) == manifests_named(known, "2" * 65) == []
