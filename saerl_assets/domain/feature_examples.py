"""Examples of a feature: the prompts that it fires on most, each with the token at which it is strongest.

Belongs here: which features are worth reading, and cutting the text around a token. Does not belong here: how often
features fire (features), what sets clusters apart (cluster_descriptions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import polars as pl

Decode: TypeAlias = Callable[[Sequence[int]], str]
"""The text of some token ids in a row."""

N_MOST_ACTIVE = 30
"""Features that are active in most prompts."""

N_PER_CLUSTER = 4
"""Features of each cluster, those that set it apart most."""

MAX_FEATURES = 300

N_AROUND = 20
"""Tokens that are shown before and after."""

EXAMPLES_SCHEMA = pl.Schema(
    {
        "feature_id": pl.UInt32(),
        "place": pl.UInt32(),
        "prompt_id": pl.String(),
        "activation": pl.Float64(),
        "token_index": pl.UInt32(),
        "before": pl.String(),
        "token": pl.String(),
        "after": pl.String(),
    }
)


def features_to_read(density: pl.DataFrame, clusters: pl.DataFrame) -> pl.DataFrame:
    """The features that a person would ask about, each with the prompts that it fires on most.

    Args:
        density: Table `feature_density`.
        clusters: Table `clusters`.

    Returns:
        `feature_id`, `place` (0 is the strongest) and `prompt_id`: of the features that set the clusters apart, largest
        cluster first, and of those active in most prompts; at most `MAX_FEATURES` features.
    """
    by_size = clusters.sort(["n_prompts", "cluster_id"], descending=[True, False])
    apart = by_size["top_features"].list.head(N_PER_CLUSTER).explode(empty_as_null=False).cast(pl.UInt32)
    often = density.filter(pl.col("n_prompts") > 0).sort(["n_prompts", "feature_id"], descending=[True, False])
    frequent = often["feature_id"].cast(pl.UInt32).head(N_MOST_ACTIVE)
    chosen = pl.concat([frequent, apart]).unique(maintain_order=True).head(MAX_FEATURES)
    return (
        density.filter(pl.col("feature_id").cast(pl.UInt32).is_in(chosen.implode()))
        .select(pl.col("feature_id").cast(pl.UInt32), prompt_id="top_prompts")
        .sort("feature_id")
        .explode("prompt_id", empty_as_null=False)
        .with_columns(place=pl.int_range(pl.len(), dtype=pl.UInt32).over("feature_id"))
    )


def cut_examples(wanted: pl.DataFrame, read: pl.DataFrame, decode: Decode) -> pl.DataFrame:
    """The text around the token at which each feature is strongest.

    Args:
        wanted: What `features_to_read` returned.
        read: `feature_id`, `prompt_id`, `activation`, `token_index` and `token_ids`, in any order.
        decode: The text of token ids in a row.

    Returns:
        Table `feature_examples` by feature and place. A text is decoded as a whole and then cut, so that a word's
        leading space and a letter of several tokens stay what they are.
    """
    rows = []
    for row in wanted.join(read, on=["feature_id", "prompt_id"], how="inner").iter_rows(named=True):
        before, token, after = around(row["token_ids"], row["token_index"], decode)
        rows.append({**{name: row[name] for name in EXAMPLES_SCHEMA.names()[:5]}} | _texts(before, token, after))
    return pl.DataFrame(rows, schema=EXAMPLES_SCHEMA).sort("feature_id", "place")


def around(token_ids: Sequence[int], index: int, decode: Decode) -> tuple[str, str, str]:
    """The text before a token, its own, and the text after it."""
    first, last = max(index - N_AROUND, 0), index + 1 + N_AROUND
    head = decode(token_ids[first:index])
    middle = decode(token_ids[first : index + 1])
    whole = decode(token_ids[first:last])
    if not middle.startswith(head) or not whole.startswith(middle):
        # the token is part of a letter that others complete; then each piece is what it is by itself
        return head, decode(token_ids[index : index + 1]), decode(token_ids[index + 1 : last])
    return head, middle[len(head) :], whole[len(middle) :]


def _texts(before: str, token: str, after: str) -> dict[str, str]:
    return {"before": before, "token": token, "after": after}
