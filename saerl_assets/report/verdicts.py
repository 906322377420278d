"""What the page says about each stage: one plain sentence or a few, and how good that is.

Belongs here: judging frames against the spec and saying so. Does not belong here: figures, tables and HTML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from saerl_assets.domain.training_feedback import difficulty_correlation, fullest
from saerl_assets.domain.trial import judge_arm
from saerl_assets.report.batches import REASONS, difficulty_ends
from saerl_assets.report.exports import said_of_order
from saerl_assets.report.style import finite, largest
from saerl_assets.report.words import count, figure, listed, share

if TYPE_CHECKING:
    from collections.abc import Iterable

    from saerl_assets.report.inputs import ReportInputs

Level = Literal["good", "watch", "bad", "missing"]

MARGIN_OVER_LENGTH = 0.05
"""Where there is no interval, a proxy must beat the prompt's length by so much before the page calls it good."""
LARGEST_CLUSTER = 0.5
"""A clustering whose largest cluster holds more is worth a look."""


@dataclass(frozen=True)
class Verdict:
    """A judgement in words. `missing` is a stage that was skipped or has not run."""

    level: Level
    text: str


def judge_data(inputs: ReportInputs) -> Verdict:
    """What became of the source's rows."""
    prompts, n_rejected, n_rows = inputs.prompts, inputs.rejected_rows.height, inputs.n_source_rows
    if not n_rows:
        return Verdict("missing", "No rows have been taken in yet.")
    if prompts.is_empty():
        return Verdict("bad", f"None of the {count(n_rows, 'row')} could be used.")
    fraction = n_rejected / n_rows
    apart = prompts.filter(pl.col("split") != "train").height
    n_folded = n_rows - n_rejected - prompts.height
    parts = [
        f"{count(n_folded, 'duplicate')} folded in" if n_folded else "no duplicates",
        f"{count(n_rejected, 'row')} rejected ({share(fraction)})" if n_rejected else "no row rejected",
    ]
    if apart:
        parts.append(f"{count(apart, 'prompt')} set apart for evaluation")
    level: Level = "good" if fraction <= inputs.spec.data.max_rejected_fraction / 2 else "watch"
    return Verdict(level, f"{count(n_rows, 'row')} became {count(prompts.height, 'prompt')}: {', '.join(parts)}.")


def judge_labels(inputs: ReportInputs) -> Verdict:
    """What is known about the prompts."""
    labels = inputs.labels
    if labels.is_empty():
        return Verdict("missing", "Nothing is known about the prompts: the spec names no labels, or none was found.")
    counted = labels.group_by("label").len().sort("label")
    known = listed([f"{name} for {count(n, 'prompt')}" for name, n in counted.iter_rows()], 6)
    disagreeing = labels.filter(pl.col("spread") > 0).height
    averaged = f" {count(disagreeing, 'value')} averaged over observations that disagree." if disagreeing else ""
    rates = inputs.outcomes["pass_rate"].to_numpy()
    answered = f"{count(rates.size, 'prompt')} were answered by the policy itself"
    own = f" {answered}, {share(float(rates.mean()))} of the time right." if rates.size else ""
    flat = rates.size > 0 and rates.min() == rates.max()
    return Verdict("watch" if flat else "good", f"Labels: {known}.{averaged}{own}")


def judge_sae(inputs: ReportInputs) -> Verdict:
    """Whether the SAE fits the prompts."""
    health = inputs.sae_health.sort("layer")
    if health.is_empty():
        return Verdict("missing", "The SAE has not been measured.")
    levels: dict[str, Level] = {"good": "good", "poor": "watch", "unfit": "bad"}
    said = [f"Layer {row['layer']}: {row['verdict']}. {row['explanation']}" for row in health.iter_rows(named=True)]
    return Verdict(worst(levels.get(verdict, "bad") for verdict in health["verdict"]), " ".join(said))


def judge_clusters(inputs: ReportInputs) -> Verdict:
    """Whether the prompts fall into several groups."""
    clusters = inputs.clusters
    if clusters.is_empty():
        return Verdict("missing", "The prompts have not been clustered.")
    biggest = largest(clusters, "prompt_fraction")
    words = f"{count(clusters.height, 'cluster')}; the largest holds {share(biggest)} of the prompts"
    topics = clusters.drop_nulls("top_topic_fraction")
    if topics.height:
        sizes = finite(topics, "n_prompts")
        pure = (finite(topics, "top_topic_fraction") * sizes).sum() / sizes.sum()
        words += f", and {share(pure)} of the prompts share their cluster's main topic"
    weak = inputs.cluster_quality.filter(verdict="watch")["explanation"].to_list()
    one_sided = clusters.height > 1 and biggest > LARGEST_CLUSTER
    level: Level = "watch" if clusters.height == 1 or one_sided or weak else "good"
    return Verdict(level, " ".join([f"{words}.", *weak]))


def judge_drift(inputs: ReportInputs) -> tuple[Verdict, ...]:
    """How far the version is from its parent; nothing where it has none."""
    measured = inputs.version_drift.drop_nulls("value").sort("measure")
    if inputs.spec.parent is None or inputs.version_drift.is_empty():
        return ()
    if measured.is_empty():
        return (Verdict("missing", str(inputs.version_drift.sort("measure")["explanation"][0])),)
    drifted = measured.filter(verdict="drifted")["explanation"].to_list()
    near = f"It is near its parent {inputs.spec.parent}: every measure of drift is within its limit."
    return (Verdict("watch" if drifted else "good", " ".join(drifted) or near),)


def judge_evidence(inputs: ReportInputs) -> tuple[Verdict, ...]:
    """Whether the SAE is worth using, label by label."""
    if inputs.evidence_verdicts.is_empty():
        return (Verdict("missing", "No label to weigh the signals on: add [labels.<name>] to the spec."),)
    levels: dict[str, Level] = {"use_sae": "good", "do_not_use": "bad", "not_measured": "missing"}
    rows = inputs.evidence_verdicts.sort("label").iter_rows(named=True)
    return tuple(Verdict(levels.get(row["verdict"], "watch"), f"{row['label']}: {row['explanation']}") for row in rows)


def judge_difficulty(inputs: ReportInputs) -> Verdict:
    """Whether the difficulty in use can be trusted more than the prompt's length."""
    if inputs.difficulty_scores.is_empty():
        return Verdict("missing", "The prompts have no difficulty yet.")
    in_use = inputs.difficulty_scores["score_name"][0]
    proxy = _spearman(inputs.difficulty_proxy, "proxy")
    length = _spearman(inputs.difficulty_proxy, "length")
    if proxy is None:
        return Verdict("missing", f"The score in use is the {in_use}. {_why_skipped(inputs.difficulty_proxy, 'proxy')}")
    words = f"The proxy ranks held-out prompts at Spearman {figure(proxy)}"
    if length is None:
        return Verdict("good" if proxy > MARGIN_OVER_LENGTH else "watch", f"{words}. In use: {in_use}.")
    words += f"; prompt length alone reaches {figure(length)}."
    row = inputs.difficulty_proxy.row(
        by_predicate=(pl.col("score_name") == "proxy") & (pl.col("rows") == "held_out"), named=True
    )
    low = row["over_length_low"]
    better = proxy - abs(length) >= MARGIN_OVER_LENGTH if low is None else low > 0
    advice = (
        "" if better else " It is not shown to beat sorting by length, so do not expect a better curriculum from it."
    )
    return Verdict("good" if better else "watch", f"{words} In use: {in_use}.{advice}")


def judge_quality(inputs: ReportInputs) -> Verdict:
    """Whether the probe predicts outcomes, and what it dropped."""
    metrics = inputs.quality_probe.filter((pl.col("rows") == "held_out") & pl.col("auroc").is_not_null())
    if metrics.is_empty():
        return Verdict(
            "missing",
            f"Nothing is filtered by quality. {_first(inputs.quality_probe['explanation'])}".strip(),
        )
    auroc, needed = float(metrics["auroc"][0]), inputs.spec.quality.min_auroc
    dropped = inputs.quality_scores.filter(~pl.col("kept")).height
    scored = inputs.quality_scores.height
    words = f"The probe reaches AUROC {figure(auroc)} on held-out prompts, where 0.5 is chance."
    if auroc < needed:
        return Verdict("watch", f"{words} The spec asks for {figure(needed)}, so nothing is filtered by it.")
    return Verdict("good", f"{words} {count(dropped)} of {count(scored, 'prompt')} are dropped.")


def judge_batches(inputs: ReportInputs) -> Verdict:
    """Whether the exported order does what it is for."""
    rows = inputs.ordered
    if rows.is_empty():
        return Verdict("missing", "No batches are planned.")
    n_batches = rows.select("epoch", "step").n_unique()
    batches = count(n_batches, "batch", "batches")
    words = [f"{batches} of {inputs.spec.batches.batch_size} in the order {inputs.planner}."]
    easy, hard = difficulty_ends(rows)
    words.append(f"Median difficulty goes from {figure(easy)} in the first tenth to {figure(hard)} in the last")
    shuffled = inputs.batch_manifest.filter(pl.col("arm") == "shuffle")
    if shuffled.height:
        words[-1] += f", where a shuffle goes from {' to '.join(figure(end) for end in difficulty_ends(shuffled))}"
    words[-1] += "."
    mixed = dict(inputs.batch_metrics.group_by("arm").agg(pl.col("n_clusters").mean()).iter_rows())
    if inputs.planner in mixed:
        beside = f", a shuffled one {figure(mixed['shuffle'])}" if "shuffle" in mixed else ""
        words.append(f"A batch mixes {figure(mixed[inputs.planner])} clusters on average{beside}.")
    words += _left_out(inputs)
    flat = inputs.spec.batches.curriculum != "none" and n_batches >= 10 and hard <= easy
    if flat:
        words.append("The curriculum does not rise: look at the difficulty scores.")
    return Verdict("watch" if flat else "good", " ".join(words))


def judge_exports(inputs: ReportInputs) -> Verdict:
    """Whether the trainers got one and the same order."""
    exports = inputs.trainer_exports
    if exports.is_empty():
        return Verdict("missing", "No trainer files are written.")
    said = said_of_order(exports)
    return Verdict("bad" if "differ" in said else "good", f"{said}.")


def judge_feedback(inputs: ReportInputs) -> Verdict:
    """Whether what trainings measured goes with the difficulty in use."""
    feedback = inputs.training_feedback
    if feedback.is_empty():
        return Verdict("missing", "No training has told anything yet.")
    run = feedback.sort("observed_at", "run_name")["run_name"][-1]
    training = fullest(feedback.filter(pl.col("run_name") == run))
    measure = next((name for name in ("reward", "pass_rate", "loss") if training[name].is_not_null().any()), None)
    if measure is None:
        return Verdict("watch", f"The log of {run} holds no reward, pass rate or loss.")
    n_prompts, correlation = difficulty_correlation(training, inputs.difficulty_scores, measure)
    named = measure.replace("_", " ")
    if correlation is None:
        return Verdict("watch", f"{run}: too few prompts with a difficulty and a {named} to hold them together.")
    expected = correlation < 0 if measure != "loss" else correlation > 0
    words = f"{run}: Spearman {figure(correlation)} of difficulty with {named}, on {count(n_prompts, 'prompt')}."
    more = "less" if measure != "loss" else "more"
    said = "" if expected else f" Harder prompts were expected to have {more} of it: look at the difficulty in use."
    return Verdict("good" if expected else "watch", words + said)


def judge_trial(inputs: ReportInputs) -> Verdict:
    """Whether training in the exported order was seen to take fewer steps than in a shuffled one."""
    found = inputs.trial_summary.filter(pl.col("arm") == inputs.planner).drop_nulls("target")
    if found.is_empty():
        remedy = f"Ask for it: saerl trial {inputs.spec.key}"
        return Verdict("missing", f"Whether this order saves steps was not tried. {remedy}")
    row = found.row(0, named=True)
    levels: dict[str | None, Level] = {"better": "good", "worse": "bad", None: "watch"}
    return Verdict(levels[judge_arm(row)], str(row["verdict"]))


def judge_lineage(inputs: ReportInputs) -> Verdict:
    """What the version continues, and whether it has moved away."""
    before = inputs.version_measures.filter(pl.col("dataset_version") != inputs.spec.key)
    if before.is_empty():
        return Verdict("good", "The first of its line.")
    here = inputs.version_measures.filter(pl.col("dataset_version") == inputs.spec.key)
    beyond = here.filter(pl.col("share_of_threshold") > 1.0)
    words = f"It continues {here['parent'][0]}, {count(before.height, 'version')} back to its first."
    if beyond.height:
        return Verdict("watch", f"{words} Beyond its limit: {beyond['furthest_measure'][0].replace('_', ' ')}.")
    return Verdict("good", words)


def judge_artifacts(inputs: ReportInputs) -> Verdict:
    """Whether the files are still what was recorded."""
    files = inputs.artifacts
    if files.is_empty():
        return Verdict("missing", "No artefact is recorded.")
    changed = files.filter(~pl.col("intact"))
    if changed.height:
        names = listed([f"{kind} {name}" for kind, name in changed.select("kind", "name").sort("kind", "name").rows()])
        return Verdict("bad", f"Changed since recorded, or gone: {names}. Materialise what made them again.")
    return Verdict("good", f"All {count(files.height, 'artefact')} still have the digests that were recorded.")


def worst(levels: Iterable[Level]) -> Level:
    """The level that a reader should see first."""
    order: tuple[Level, ...] = ("bad", "watch", "missing", "good")
    return min(levels, key=order.index, default="missing")


def _left_out(inputs: ReportInputs) -> list[str]:
    rows = inputs.deferred_prompts.filter(pl.col("arm") == inputs.planner)
    if rows.is_empty():
        return []
    counted = (
        rows.group_by("reason_code")
        .agg(pl.col("prompt_id").n_unique().alias("n"))
        .sort(["n", "reason_code"], descending=[True, False])
    )
    said = listed([f"{count(n)} {REASONS.get(code, code)}" for code, n in counted.iter_rows()], 5)
    return [f"Left out of the order: {said}."]


def _spearman(metrics: pl.DataFrame, score: str) -> float | None:
    """The held-out rank correlation of a score; for length any, as nothing is fitted there."""
    rows = metrics.filter((pl.col("score_name") == score) & pl.col("spearman").is_not_null())
    if score == "proxy":
        rows = rows.filter(pl.col("rows") == "held_out")
    return float(rows["spearman"][0]) if rows.height else None


def _why_skipped(metrics: pl.DataFrame, score: str) -> str:
    return _first(metrics.filter(pl.col("score_name") == score)["explanation"])


def _first(explanations: pl.Series) -> str:
    return str(explanations[0]) if explanations.len() else ""
