from __future__ import annotations

import dagster as dg
import polars as pl
import pytest

from saerl_assets.checks.batches import digest_fits, invariants_hold
from saerl_assets.domain.manifests import manifest_digest
from saerl_assets_tests.checks.cases import Case

CHECK = "batch_manifest.manifest_invariants"
PROMPTS = pl.DataFrame({"prompt_id": list("abcdefx"), "split": ["train"] * 6 + ["evaluation"]})
DEFERRED = pl.DataFrame({"arm": ["one", "one"], "epoch": [0, 0], "prompt_id": ["e", "f"]})


def manifest(order: str, *, padding: str = "", batch_size: int = 2) -> pl.DataFrame:
    ids = list(order + padding)
    return pl.DataFrame(
        {
            "manifest_id": "m",
            "arm": "one",
            "epoch": 0,
            "step": [place // batch_size for place in range(len(ids))],
            "slot": [place % batch_size for place in range(len(ids))],
            "prompt_id": ids,
            "is_padding": [place >= len(order) for place in range(len(ids))],
        }
    )


def hold(rows: pl.DataFrame, deferred: pl.DataFrame = DEFERRED, *, tail: str = "drop") -> dg.AssetCheckResult:
    return invariants_hold(rows, PROMPTS, deferred, batch_size=2, tail=tail)


def changed(**columns: pl.Expr) -> pl.DataFrame:
    return manifest("abcd").with_columns(**columns)


AT_THREE = pl.arange(pl.len()) == 3
CASES = [
    Case(CHECK, True, "once an epoch", lambda: hold(manifest("abcd"))),
    Case(CHECK, True, "once an epoch", lambda: hold(manifest("abcde"), DEFERRED.tail(1), tail="short")),
    Case(CHECK, True, "once an epoch", lambda: hold(manifest("abcde", padding="a"), DEFERRED.tail(1), tail="pad")),
    Case(CHECK, False, "is empty", lambda: hold(manifest("ab").clear())),
    Case(CHECK, False, "2 prompts are lost", lambda: hold(manifest("ab"))),
    Case(CHECK, False, "1 prompts are lost", lambda: hold(manifest("abcd"), DEFERRED.head(1))),
    Case(CHECK, False, "2 slots repeat a prompt", lambda: hold(manifest("abcdaf"), DEFERRED.head(1))),
    Case(CHECK, False, "both in the order and deferred", lambda: hold(manifest("abcdef"))),
    Case(CHECK, False, "not of the training split", lambda: hold(manifest("abcdx"), DEFERRED, tail="short")),
    Case(CHECK, False, "1 batches do not have 2 slots", lambda: hold(manifest("abcde"), DEFERRED.tail(1))),
    Case(CHECK, False, "2 batches do not have 2 slots", lambda: hold(changed(slot=pl.lit(0)))),
    Case(
        CHECK,
        False,
        "of several manifests",
        lambda: hold(changed(manifest_id=pl.when(AT_THREE).then(pl.lit("n")).otherwise(pl.lit("m")))),
    ),
]


DIGEST = "batch_manifest.rows_have_their_digest"


def named(key: str = "a-v1") -> tuple[pl.DataFrame, pl.DataFrame]:
    """A manifest under its right name."""
    rows = manifest("abcd").with_columns(
        pl.col("epoch", "step", "slot").cast(pl.UInt32), cluster_id=pl.lit(0, pl.UInt32), difficulty=pl.lit(0.5)
    )
    left_out = DEFERRED.with_columns(
        pl.col("epoch").cast(pl.UInt32), reason_code=pl.lit("tail"), reason=pl.lit("Tail.")
    )
    name = pl.lit(manifest_digest(rows, left_out, key=key))
    return rows.with_columns(manifest_id=name), left_out.with_columns(manifest_id=name)


def edited() -> tuple[pl.DataFrame, pl.DataFrame]:
    rows, left_out = named()
    return rows.with_columns(prompt_id=pl.col("prompt_id").reverse()), left_out


CASES += [
    Case(DIGEST, True, "named after", lambda: digest_fits(*named(), key="a-v1")),
    Case(DIGEST, False, "were changed", lambda: digest_fits(*edited(), key="a-v1")),
    Case(DIGEST, False, "were changed", lambda: digest_fits(*named(), key="b-v1")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_batches_checks(case: Case) -> None:
    case.hold()


def test_a_short_batch_may_only_be_the_last() -> None:
    rows = manifest("abcde").with_columns(step=pl.Series([0, 1, 1, 2, 2]), slot=pl.Series([0, 0, 1, 0, 1]))
    assert not hold(rows, DEFERRED.tail(1), tail="short").passed
