"""Who ranks where by difficulty, and what the spec's range keeps of it."""

from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.domain.candidates import PlannedOn, gather_candidates
from saerl_assets.domain.contamination import HITS_SCHEMA
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.near_duplicates import GROUPS_SCHEMA
from saerl_assets.domain.spec import DifficultySpec, VersionSpec, parse_spec

NONE = pl.DataFrame(schema={"prompt_id": pl.String})


def tables(difficulty: list[float]) -> PlannedOn:
    """So many training prompts, named a, b, c ..., and one set apart that is harder than all."""
    ids = [chr(ord("a") + at) for at in range(len(difficulty))]
    names = pl.DataFrame({"prompt_id": [*ids, "apart"]})
    return PlannedOn(
        prompts=names.with_columns(
            split=pl.when(pl.col("prompt_id") == "apart").then(pl.lit("evaluation")).otherwise(pl.lit("train")),
            n_tokens=pl.lit(9, dtype=pl.UInt32),
            n_prefix_tokens=pl.lit(0, dtype=pl.UInt32),
        ),
        cluster_assignments=names.with_columns(cluster_id=pl.lit(0, dtype=pl.UInt32)),
        difficulty_scores=names.with_columns(difficulty=pl.Series([*difficulty, 1e9], dtype=pl.Float64)),
        quality_scores=names.with_columns(kept=pl.lit(value=True), quality=0.5, reason=pl.lit("")),
        near_duplicates=pl.DataFrame(schema=GROUPS_SCHEMA),
        contamination=pl.DataFrame(schema=HITS_SCHEMA),
        control_signals=NONE,
    )


def kept(difficulty: list[float], **ranks: float) -> str:
    spec = VersionSpec.model_validate({"key": "a-v1", "data": {"source": "path:x"}, "difficulty": ranks})
    found = gather_candidates(tables(difficulty), spec)
    return "".join(found.filter(pl.col("out_of_range").is_null())["prompt_id"])


def test_a_range_keeps_its_share_of_the_training_prompts_by_difficulty_and_then_by_id() -> None:
    assert kept([5, 4, 3, 2, 1]) == "edcba"
    assert kept([5, 4, 3, 2, 1], max_rank=0.4) == "ed"
    assert kept([5, 4, 3, 2, 1], min_rank=0.4) == "cba"
    assert kept([5, 4, 3, 2, 1], min_rank=0.2, max_rank=0.8) == "dcb"
    assert kept([1, 1, 1, 1], max_rank=0.5) == "ab"
    assert kept([1, 1, 1, 1], min_rank=0.9, max_rank=0.95) == ""


def test_parts_that_meet_have_every_prompt_once() -> None:
    for n in (1, 7, 100):
        for bound in (0.01, 0.29, 0.5, 0.57, 0.999):
            low, high = DifficultySpec(max_rank=bound).places_kept(n), DifficultySpec(min_rank=bound).places_kept(n)
            assert [*low, *high] == list(range(n))
    assert len(DifficultySpec(max_rank=0.29).places_kept(100)) == 29


def test_the_reason_names_the_place_and_what_is_kept() -> None:
    ranks = {"min_rank": 0.25, "max_rank": 0.75}
    spec = VersionSpec.model_validate({"key": "a-v1", "data": {"source": "path:x"}, "difficulty": ranks})
    found = gather_candidates(tables([1, 2, 3, 4]), spec).drop_nulls("out_of_range")
    bounds = "by difficulty, the lowest score first; difficulty.min_rank = 0.25 and max_rank = 0.75 keep 2 to 3."
    assert dict(found.select("prompt_id", "out_of_range").iter_rows()) == {
        "a": f"Number 1 of 4 {bounds}",
        "d": f"Number 4 of 4 {bounds}",
    }


def test_difficulty_leaves_prompts_out_by_one_rule_alone() -> None:
    text = 'key = "a-v1"\n[data]\nsource = "path:x"\n[difficulty]\nmax_rank = 0.9\n[batches.feedback]\n'
    with pytest.raises(SaerlError, match=r"so does \[batches.feedback\]; leave one of them out"):
        parse_spec(text, "a.toml")
    assert parse_spec(text.replace("0.9", "1.0"), "a.toml").batches.feedback is not None


def test_a_range_of_nothing_is_refused() -> None:
    text = 'key = "a-v1"\n[data]\nsource = "path:x"\n[difficulty]\nmin_rank = 0.5\nmax_rank = 0.5\n'
    with pytest.raises(SaerlError, match="leaves nothing under max_rank"):
        parse_spec(text, "a.toml")
    with pytest.raises(SaerlError, match="max_rank = 0; set max_rank higher"):
        parse_spec(text.replace("0.5", "0.0"), "a.toml")
