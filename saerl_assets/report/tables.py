"""Tables of what was taken up and read: prompts, rejected rows, features, clusters.

Belongs here: which rows and columns a table shows, and how its values are said. Does not belong here: HTML, which
escapes every text that comes from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saerl_assets.report.blocks import Cell, Column, Table, cells, columns, number, rows
from saerl_assets.report.cells import cluster_cell, kept_cell, known, rank_cell, texts_of, topic_cell, unfold
from saerl_assets.report.marks import thinned
from saerl_assets.report.words import count, cut, figure, least_shown, share, short

if TYPE_CHECKING:
    import polars as pl

    from saerl_assets.report.inputs import ReportInputs

MAX_PROMPTS = 2000
MAX_REJECTED = 50
MAX_FEATURES = 30
MAX_CLUSTER_FEATURES = 4
TEXT_LIMIT = 300
"""Letters of a prompt in the long table; the page of 2,000 prompts stays under 3 MB."""


def prompts_shown(inputs: ReportInputs) -> pl.DataFrame:
    """The prompts of the long table: all, or an even sample where there are many."""
    return thinned(inputs.prompts, "prompt_id", MAX_PROMPTS)


def prompts_table(inputs: ReportInputs) -> Table:
    """Every prompt with all its signals side by side, or an even sample where there are many."""
    sample = prompts_shown(inputs)
    signals = (
        sample.join(inputs.cluster_assignments.select("prompt_id", "cluster_id"), on="prompt_id", how="left")
        .join(
            inputs.difficulty_scores.select("prompt_id", "difficulty", "difficulty_rank"),
            on="prompt_id",
            how="left",
        )
        .join(inputs.quality_scores.select("prompt_id", "quality", "kept"), on="prompt_id", how="left")
        .sort("position")
    )
    least = least_shown(inputs.difficulty_scores["difficulty"])
    shown = [
        cells(
            Cell(short(row["prompt_id"])),
            Cell(cut(row["text"], TEXT_LIMIT)),
            Cell(row["topic"] or ""),
            Cell(row["split"]),
            number(row["n_tokens"], count(row["n_tokens"])),
            cluster_cell(row["cluster_id"]),
            rank_cell(row["difficulty_rank"], row["difficulty"], least),
            number(row["quality"], known(row["quality"])),
            kept_cell(row["kept"]),
        )
        for row in signals.iter_rows(named=True)
    ]
    whole = sample.height == inputs.prompts.height
    return Table(
        "prompts-table",
        "Prompts",
        columns(
            Column("prompt", "place"),
            Column("text", "long"),
            Column("topic", facet=True),
            Column("split", facet=True),
            Column("tokens", "number"),
            Column("cluster", "number", facet=True),
            Column("difficulty", "number", "The bar is its rank in the version, the number the score in use."),
            Column("quality", "number", "Predicted probability of a correct outcome."),
            Column("filter", facet=True),
        ),
        rows(shown),
        filterable=True,
        note=""
        if whole
        else f"An even sample of {count(sample.height)} out of {count(inputs.prompts.height, 'prompt')}.",
    )


def rejected_table(inputs: ReportInputs) -> Table:
    """The first rows that were not taken, with the reason and the remedy."""
    rejected = inputs.rejected_rows.sort("position").head(MAX_REJECTED)
    shown = [
        cells(
            number(row["line"], f"{row['file'].rsplit('/', 1)[-1]}:{row['line']}"),
            row["reason_code"].replace("_", " "),
            row["reason"],
            cut(row["raw"], 200),
        )
        for row in rejected.iter_rows(named=True)
    ]
    more = inputs.rejected_rows.height - rejected.height
    return Table(
        "rejected-table",
        "Rows that were not taken",
        columns(
            Column("line", "place"),
            Column("reason", facet=True),
            Column("in words", "long"),
            Column("row", "long"),
        ),
        rows(shown),
        note=f"{count(more)} more are in the table rejected_rows." if more else "",
    )


def features_table(inputs: ReportInputs) -> Table:
    """The most active features, each with the prompts that drive it most."""
    top = inputs.feature_density.sort(["n_prompts", "feature_id"], descending=[True, False]).head(MAX_FEATURES)
    texts = texts_of(inputs, top["top_prompts"].explode(empty_as_null=False).to_list())
    n_prompts = max(inputs.prompts.height, 1)
    shown = [
        cells(
            number(row["feature_id"], str(row["feature_id"])),
            number(row["layer"], str(row["layer"])),
            number(row["latent"], str(row["latent"])),
            number(row["n_prompts"], share(row["n_prompts"] / n_prompts), share=row["n_prompts"] / n_prompts),
            number(row["n_tokens"], count(row["n_tokens"])),
            number(row["mean_activation"], figure(row["mean_activation"])),
            number(row["max_activation"], figure(row["max_activation"])),
            unfold(texts, row["top_prompts"], "prompt"),
        )
        for row in top.iter_rows(named=True)
    ]
    return Table(
        "features-table",
        f"The {count(top.height, 'feature')} active in most prompts",
        columns(
            Column("feature", "number"),
            Column("layer", "number"),
            Column("latent", "number", "Its index in the SAE of that layer."),
            Column("prompts", "number", "Share of the prompts in which it is active at least once."),
            Column("tokens", "number", "Tokens on which it is active."),
            Column("mean", "number", "Mean activation over those tokens."),
            Column("largest", "number", "Largest activation."),
            Column("strongest in", "long"),
        ),
        rows(shown),
    )


def clusters_table(inputs: ReportInputs) -> Table:
    """Every cluster with its words, its features and the prompts nearest to its middle."""
    clusters = inputs.clusters.sort("cluster_id")
    texts = texts_of(inputs, clusters["exemplars"].explode(empty_as_null=False).to_list())
    shown = [
        cells(
            cluster_cell(row["cluster_id"]),
            number(row["n_prompts"], count(row["n_prompts"]), share=row["prompt_fraction"]),
            topic_cell(row["top_topic"], row["top_topic_fraction"]),
            Cell(", ".join(row["top_words"] or [])),
            Cell(_features_with_tokens(row["top_features"] or [], row["firing_tokens"] or [])),
            number(row["mean_similarity"], figure(row["mean_similarity"])),
            unfold(texts, row["exemplars"], "exemplar"),
        )
        for row in clusters.iter_rows(named=True)
    ]
    return Table(
        "clusters-table",
        "Clusters",
        columns(
            Column("cluster", "number", "A click shows its prompts in the table of prompts."),
            Column("prompts", "number"),
            Column("main topic", hint="The most frequent topic, and its share of the cluster."),
            Column("words", "words", "Words that set it apart, strongest first."),
            Column("features", "code", "Features that set it apart, strongest first, with the tokens that fire them."),
            Column("cosine", "number", "Mean similarity of its prompts to its middle."),
            Column("nearest to its middle", "long"),
        ),
        rows(shown),
        filterable=clusters.height > 12,
    )


def _features_with_tokens(features: list[int], tokens: list[str]) -> str:
    """The first features, each with the tokens at which it is strongest."""
    named = [f"{feature} ({said})" if said else str(feature) for feature, said in zip(features, tokens, strict=False)]
    return "; ".join(named[:MAX_CLUSTER_FEATURES])
