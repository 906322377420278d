"""The tables of the page: prompts, rejected rows, features, clusters, scores, arms, batches, files.

Belongs here: which rows and columns a table shows, and how its values are said. Does not belong here: HTML,
which escapes every text that comes from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.batches import difficulty_ends, numbered
from saerl_assets.report.blocks import Cell, Column, Table, cells, columns, number, rows
from saerl_assets.report.marks import thinned
from saerl_assets.report.words import count, cut, figure, n_bytes, share, short

if TYPE_CHECKING:
    from collections.abc import Iterable

    from saerl_assets.report.inputs import ReportInputs

MAX_PROMPTS = 2000
MAX_REJECTED = 50
MAX_FEATURES = 30
MAX_SLOTS = 16
TEXT_LIMIT = 360
"""Letters of a prompt in the long table; 2,000 prompts stay under 2 MB."""


def prompts_table(inputs: ReportInputs) -> Table:
    """Every prompt with all its signals side by side, or an even sample where there are many."""
    sample = thinned(inputs.prompts, "prompt_id", MAX_PROMPTS)
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
    shown = [
        cells(
            Cell(short(row["prompt_id"])),
            Cell(cut(row["text"], TEXT_LIMIT)),
            Cell(row["topic"] or ""),
            Cell(row["split"]),
            number(row["n_tokens"], count(row["n_tokens"])),
            _cluster(row["cluster_id"]),
            _rank(row["difficulty_rank"], row["difficulty"]),
            number(row["quality"], _said(row["quality"])),
            _kept(row["kept"]),
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
            Column(
                "difficulty", "number", "The bar is its rank in the version, the number the score in use."
            ),
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
    top = inputs.feature_density.sort(["n_prompts", "feature_id"], descending=[True, False]).head(
        MAX_FEATURES
    )
    texts = _texts(inputs, top["top_prompts"].explode(empty_as_null=False).to_list())
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
            _unfold(texts, row["top_prompts"], "prompt"),
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
    texts = _texts(inputs, clusters["exemplars"].explode(empty_as_null=False).to_list())
    shown = [
        cells(
            _cluster(row["cluster_id"]),
            number(row["n_prompts"], count(row["n_prompts"]), share=row["prompt_fraction"]),
            _topic(row["top_topic"], row["top_topic_fraction"]),
            Cell(", ".join(row["top_words"] or [])),
            Cell(", ".join(str(feature) for feature in (row["top_features"] or [])[:6])),
            number(row["mean_similarity"], figure(row["mean_similarity"])),
            _unfold(texts, row["exemplars"], "exemplar"),
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
            Column("features", "code", "Features that set it apart, strongest first."),
            Column("cosine", "number", "Mean similarity of its prompts to its middle."),
            Column("nearest to its middle", "long"),
        ),
        rows(shown),
        filterable=clusters.height > 12,
    )


def extremes_table(inputs: ReportInputs, *, hardest: bool, n: int = 6) -> Table:
    """The easiest or the hardest prompts."""
    ranked = inputs.difficulty_scores.sort(
        ["difficulty_rank", "prompt_id"], descending=[hardest, False]
    ).head(n)
    texts = _texts(inputs, ranked["prompt_id"].to_list())
    shown = [
        cells(
            number(row["difficulty"], figure(row["difficulty"])),
            cut(texts.get(row["prompt_id"], row["prompt_id"]), 220),
        )
        for row in ranked.iter_rows(named=True)
    ]
    name = "hardest" if hardest else "easiest"
    return Table(
        f"{name}-table",
        f"The {name} prompts",
        columns(Column("difficulty", "number"), Column("prompt", "long")),
        rows(shown),
    )


def proxy_table(inputs: ReportInputs) -> Table:
    """How every score ranks the labelled prompts."""
    shown = [
        cells(
            row["score_name"],
            row["rows"].replace("_", " "),
            number(row["n_rows"], count(row["n_rows"])),
            number(row["spearman"], _said(row["spearman"])),
            number(row["r2"], _said(row["r2"])),
            row["explanation"],
        )
        for row in inputs.difficulty_proxy.iter_rows(named=True)
    ]
    return Table(
        "proxy-table",
        "What ranks the labelled prompts how well",
        columns(
            "score",
            "rows",
            Column("prompts", "number"),
            Column("Spearman", "number", "Rank correlation with the label."),
            Column("R²", "number", "Share of the label's variance explained."),
            Column("what it is", "long"),
        ),
        rows(shown),
    )


def probe_table(inputs: ReportInputs) -> Table:
    """How well the quality probe predicts."""
    shown = [
        cells(
            row["probe"],
            row["rows"].replace("_", " "),
            number(row["n_rows"], count(row["n_rows"])),
            number(row["base_rate"], _said(row["base_rate"])),
            number(row["auroc"], _said(row["auroc"])),
            number(row["brier"], _said(row["brier"])),
            row["explanation"],
        )
        for row in inputs.quality_probe.iter_rows(named=True)
    ]
    return Table(
        "probe-table",
        "The probe",
        columns(
            "probe",
            "rows",
            Column("prompts", "number"),
            Column("base rate", "number", "Share of correct outcomes."),
            Column("AUROC", "number", "0.5 is chance, 1 is perfect."),
            Column("Brier", "number", "Mean squared error of the probability."),
            Column("what it is", "long"),
        ),
        rows(shown),
    )


def dropped_table(inputs: ReportInputs, n: int = 12) -> Table:
    """Prompts that are dropped for quality, the worst first."""
    dropped = inputs.quality_scores.filter(~pl.col("kept")).sort("quality", "prompt_id", nulls_last=True)
    texts = _texts(inputs, dropped["prompt_id"].head(n).to_list())
    shown = [
        cells(
            number(row["quality"], _said(row["quality"])),
            cut(texts.get(row["prompt_id"], row["prompt_id"]), 220),
            row["reason"],
        )
        for row in dropped.head(n).iter_rows(named=True)
    ]
    return Table(
        "dropped-table",
        "Dropped for quality, the worst first",
        columns(Column("quality", "number"), Column("prompt", "long"), Column("why", "long")),
        rows(shown),
        note=f"{count(dropped.height - n)} more are in the table quality_scores."
        if dropped.height > n
        else "",
    )


def arms_table(inputs: ReportInputs) -> Table:
    """The exported order beside every control, in figures."""
    measured = (
        inputs.batch_metrics.group_by("arm")
        .agg(
            pl.col("n_clusters").mean(),
            pl.col("cluster_entropy").mean(),
            pl.col("feature_overlap").mean(),
        )
        .sort("arm")
    )
    means = {row["arm"]: row for row in measured.iter_rows(named=True)}
    arms = sorted(inputs.batch_manifest["arm"].unique(), key=lambda arm: (arm != inputs.planner, arm))
    shown = []
    for arm in arms:
        order = inputs.batch_manifest.filter(pl.col("arm") == arm)
        easy, hard = difficulty_ends(order)
        mean = means.get(arm, {})
        shown.append(
            cells(
                Cell(arm.replace("_", " "), tag="exported" if arm == inputs.planner else ""),
                number(order.height, count(order.select("epoch", "step").n_unique())),
                number(order["prompt_id"].n_unique(), count(order["prompt_id"].n_unique())),
                number(mean.get("n_clusters"), _said(mean.get("n_clusters"))),
                number(mean.get("cluster_entropy"), _said(mean.get("cluster_entropy"))),
                number(mean.get("feature_overlap"), _said(mean.get("feature_overlap"))),
                number(hard - easy, f"{figure(easy)} → {figure(hard)}"),
            )
        )
    return Table(
        "arms-table",
        "The exported order and its controls",
        columns(
            "arm",
            Column("batches", "number"),
            Column("prompts", "number", "Different prompts."),
            Column("clusters", "number", "Clusters in a batch, mean."),
            Column("entropy", "number", "Cluster entropy of a batch in nats, mean."),
            Column(
                "overlap", "number", "Jaccard overlap of active features between prompts of a batch, mean."
            ),
            Column("difficulty", "number", "Median of the first tenth of the batches, and of the last."),
        ),
        rows(shown),
    )


def batch_table(inputs: ReportInputs, *, last: bool) -> Table:
    """The first or the last batch of the exported order, as the trainer reads it."""
    order = numbered(inputs.ordered)
    wanted = int(order["batch"].max() or 0) if last else 0  # type: ignore[arg-type]
    batch = order.filter(pl.col("batch") == wanted).sort("slot")
    texts = _texts(inputs, batch["prompt_id"].to_list())
    shown = [
        cells(
            number(row["slot"], str(row["slot"])),
            _cluster(row["cluster_id"]),
            number(row["difficulty"], figure(row["difficulty"])),
            cut(texts.get(row["prompt_id"], row["prompt_id"]), 180),
        )
        for row in batch.head(MAX_SLOTS).iter_rows(named=True)
    ]
    name = "last" if last else "first"
    return Table(
        f"{name}-batch-table",
        f"The {name} batch",
        columns(
            Column("slot", "number"),
            Column("cluster", "number"),
            Column("difficulty", "number"),
            Column("prompt", "long"),
        ),
        rows(shown),
        note=f"{count(batch.height - MAX_SLOTS)} more prompts in it." if batch.height > MAX_SLOTS else "",
    )


def exports_table(inputs: ReportInputs) -> Table:
    """The trainers' files."""
    shown = [
        cells(
            row["trainer"],
            row["arm"],
            number(row["n_rows"], count(row["n_rows"])),
            number(row["n_steps"], count(row["n_steps"])),
            row["path"],
            row["order_digest"][:16],
        )
        for row in inputs.trainer_exports.sort("trainer", "arm").iter_rows(named=True)
    ]
    return Table(
        "exports-table",
        "Files for trainers",
        columns(
            "trainer",
            "arm",
            Column("rows", "number"),
            Column("batches", "number"),
            Column("folder below the home", "place"),
            Column("order", "code", "SHA-256 over the ordered prompt ids; equal for equal orders."),
        ),
        rows(shown),
    )


def artifacts_table(inputs: ReportInputs) -> Table:
    """Every file beside the tables."""
    shown = [
        cells(
            f"{row['kind']} {row['name']}",
            Cell("intact", tag="good") if row["intact"] else Cell("changed or gone", tag="bad"),
            number(row["n_bytes"], n_bytes(row["n_bytes"])),
            row["made_by"],
            row["path"],
            row["digest"],
        )
        for row in inputs.artifacts.sort("kind", "name").iter_rows(named=True)
    ]
    return Table(
        "artifacts-table",
        "Artefacts",
        columns(
            "artefact",
            "state",
            Column("size", "number"),
            "made by",
            Column("path below the home", "place"),
            Column("SHA-256", "code"),
        ),
        rows(shown),
    )


def _texts(inputs: ReportInputs, prompt_ids: Iterable[str | None]) -> dict[str, str]:
    """The texts of a few prompts, by id; an id that is no prompt of the version is left out."""
    wanted = pl.Series("prompt_id", sorted({name for name in prompt_ids if name}), dtype=pl.String)
    found = inputs.prompts.filter(pl.col("prompt_id").is_in(wanted.implode()))
    return dict(found.select("prompt_id", "text").iter_rows())


def _unfold(texts: dict[str, str], prompt_ids: list[str] | None, noun: str) -> Cell:
    """The first text, with the others to unfold."""
    said = [cut(texts.get(name, f"prompt {short(name)}"), 240) for name in prompt_ids or []]
    if not said:
        return Cell("none")
    return Cell(
        said[0], more=tuple(said[1:]), tag="" if len(said) == 1 else count(len(said) - 1, f"more {noun}")
    )


def _cluster(cluster: int | None) -> Cell:
    return number(cluster, "" if cluster is None else str(cluster))


def _rank(rank: float | None, difficulty: float | None) -> Cell:
    return number(rank, _said(difficulty), share=rank)


def _kept(kept: bool | None) -> Cell:  # noqa: FBT001 - a value of a table
    if kept is None:
        return Cell("")
    return Cell("kept", tag="good") if kept else Cell("dropped", tag="bad")


def _topic(topic: str | None, fraction: float | None) -> Cell:
    if topic is None:
        return Cell("")
    return Cell(f"{topic} {share(fraction)}" if fraction is not None else topic)


def _said(value: float | None) -> str:
    """A figure, or nothing where it is not known: in a table an empty cell says it."""
    return "" if value is None else figure(value)
