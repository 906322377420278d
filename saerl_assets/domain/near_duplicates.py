"""Near-duplicates: prompts that are the same problem in nearly the same words, in groups with one representative each.

Belongs here: what a near-duplicate is, groups and who represents them. Does not belong here: finding pairs
(text_pairs, feature_pairs), and what is done about them (batches).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.alignment import agreeing
from saerl_assets.domain.feature_pairs import cosines, feature_pairs
from saerl_assets.domain.features import require_aligned
from saerl_assets.domain.pairs import connected_groups, problem_keys
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.quantities import quantities
from saerl_assets.domain.text_pairs import jaccard_overlaps, text_pairs
from saerl_assets.domain.wording import tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet
    from saerl_assets.domain.spec import HygieneSpec, Pooling

GROUPS_SCHEMA = pl.Schema(
    {
        "prompt_id": pl.String(),
        "group_id": pl.UInt32(),
        "n_prompts": pl.UInt32(),
        "representative": pl.String(),
        "role": pl.String(),
        "nearest": pl.String(),
        "jaccard": pl.Float64(),
        "similarity": pl.Float64(),
        "found_by": pl.String(),
    }
)
PAIRS_SCHEMA = pl.Schema(
    {
        "prompt_id": pl.String(),
        "other_id": pl.String(),
        "jaccard": pl.Float64(),
        "similarity": pl.Float64(),
        "found_by": pl.String(),
    }
)


@dataclass(frozen=True)
class NearDuplicates:
    """What was found."""

    groups: pl.DataFrame
    """Table `near_duplicates`, by group and prompt."""
    pairs: pl.DataFrame
    """Every pair, from both of its sides: PAIRS_SCHEMA, by prompt and other."""


def read_texts(prompts: pl.DataFrame) -> list[str]:
    """What is compared of each prompt: its text and, where one is read with it, its response."""
    texts = prompts.select(pl.concat_str("text", "response", separator="\n", ignore_nulls=True)).to_series()
    return texts.to_list()


def find_near_duplicates(
    prompts: pl.DataFrame,
    features: FeatureSet,
    assignments: pl.DataFrame,
    spec: HygieneSpec,
    pooling: Pooling,
    progress: Progress = silent,
) -> NearDuplicates:
    """Finds the prompts that are the same problem in nearly the same words.

    Two prompts are near-duplicates if they could be the same problem and either their texts overlap by `min_jaccard`
    or their features are as parallel as `min_similarity`. They could be the same problem if they have the same
    quantities (`quantities.parts`) between the same words (`alignment.state_the_same`), and the same short reference
    answer where all have one (`pairs.problem_keys`). Groups are what these pairs connect. A group's representative is
    the training prompt with the smallest prompt_id, which depends on nothing but the prompts; where it has no training
    prompt, the prompt with the smallest.

    Args:
        prompts: Table `prompts`, by prompt_id.
        features: Of the same prompts.
        assignments: Table `cluster_assignments`.
        spec: What counts as near.
        pooling: How a prompt's tokens become one value per feature.
        progress: Told what is being looked at.

    Raises:
        SaerlError: `features_not_finite`.
    """
    require_aligned(features, prompts)
    texts, keys = read_texts(prompts), prompt_keys(prompts)
    placed = prompts.select("prompt_id").join(assignments, on="prompt_id", how="left", maintain_order="left")
    by_text = text_pairs(texts, keys, min_jaccard=spec.min_jaccard, progress=progress)
    by_features = feature_pairs(
        features,
        keys,
        placed["cluster_id"].cast(pl.Int64).to_numpy(),
        placed["similarity"].to_numpy(),
        pooling=pooling,
        min_similarity=spec.min_similarity,
        progress=progress,
    )
    linked = by_text.select("first", "second").merge_sorted(by_features.select("first", "second"), key="first")
    linked = linked.unique().sort("first", "second")
    linked = linked.filter(agreeing(texts, linked))
    first, second = linked["first"].to_numpy(), linked["second"].to_numpy()
    measured = linked.with_columns(
        jaccard=jaccard_overlaps(texts, first, second),
        similarity=cosines(features, first, second, pooling=pooling),
    ).with_columns(found_by=_found_by(spec))
    names = prompts["prompt_id"]
    pairs = _both_sides(measured, names)
    return NearDuplicates(_groups(pairs, connected_groups(measured, prompts.height), prompts), pairs)


def prompt_keys(prompts: pl.DataFrame) -> NDArray[np.int64]:
    """The problem that each prompt could be, int64 [n_prompts], see `pairs.problem_keys`."""
    answers = (None if answer is None else tokens(answer) or [answer] for answer in prompts["answer"])
    return problem_keys((quantities(text) for text in read_texts(prompts)), answers)


def folded_reasons(near_duplicates: pl.DataFrame, spec: HygieneSpec) -> pl.DataFrame:
    """The copies that the spec folds, each with its reason: prompt_id, reason."""
    copies = near_duplicates.filter((pl.col("role") == "copy") & (spec.near_duplicates == "fold"))
    reason = pl.format(
        "It nearly repeats prompt {} (text overlap {}, feature cosine {}); prompt {} stands for all {} of its group.",
        "nearest",
        pl.col("jaccard").round(3),
        pl.col("similarity").round(3),
        "representative",
        "n_prompts",
    )
    return copies.select("prompt_id", reason=reason)


def _found_by(spec: HygieneSpec) -> pl.Expr:
    by_text = pl.col("jaccard") >= spec.min_jaccard
    both = by_text & (pl.col("similarity") >= spec.min_similarity)
    return pl.when(both).then(pl.lit("both")).when(by_text).then(pl.lit("text")).otherwise(pl.lit("features"))


def _both_sides(measured: pl.DataFrame, names: pl.Series) -> pl.DataFrame:
    """The pairs by name, once from each side."""
    sides = [
        measured.select(
            prompt_id=names.gather(measured[own]),
            other_id=names.gather(measured[other]),
            jaccard="jaccard",
            similarity="similarity",
            found_by="found_by",
        )
        for own, other in (("first", "second"), ("second", "first"))
    ]
    return pl.concat(sides).cast(PAIRS_SCHEMA).sort("prompt_id", "other_id")


def _groups(pairs: pl.DataFrame, group_of: NDArray[np.int64], prompts: pl.DataFrame) -> pl.DataFrame:
    """The groups of more than one prompt, largest first, each member with the link that ties it closest."""
    closest = pairs.sort(
        ["prompt_id", "jaccard", "similarity", "other_id"], descending=[False, True, True, False]
    ).unique("prompt_id", keep="first", maintain_order=True)
    is_train = pl.col("split") == "train"
    members = (
        prompts.select("prompt_id", "split", group=pl.Series(group_of))
        .join(closest.rename({"other_id": "nearest"}), on="prompt_id")
        .with_columns(
            n_prompts=pl.len().over("group"),
            representative=pl.coalesce(
                pl.col("prompt_id").filter(is_train).min().over("group"), pl.col("prompt_id").min().over("group")
            ),
        )
        .with_columns(
            role=pl.when(~is_train)
            .then(pl.lit("evaluation"))
            .when(pl.col("prompt_id") == pl.col("representative"))
            .then(pl.lit("representative"))
            .otherwise(pl.lit("copy"))
        )
        .sort(["n_prompts", "representative", "prompt_id"], descending=[True, False, False])
    )
    numbered = members.with_columns(group_id=pl.col("representative").rle_id())
    return numbered.select(*GROUPS_SCHEMA).cast(GROUPS_SCHEMA)
