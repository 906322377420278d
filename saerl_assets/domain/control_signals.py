"""Signals that control arms are planned on in place of what the SAE says.

Belongs here: clusters and a difficulty from the reader's dense states, the labels' own difficulty. Does not belong
here: the SAE's signals (clusters, difficulty), the orders that are planned on these (arms).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from saerl_assets.domain.agreement import spearman
from saerl_assets.domain.arms import PLANNED_ON
from saerl_assets.domain.clusters import fit_clusters
from saerl_assets.domain.dense_states import StandardStates, summed_norms
from saerl_assets.domain.difficulty import score_difficulty
from saerl_assets.domain.label_scale import LabelScale
from saerl_assets.domain.supervision import known_values

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet
    from saerl_assets.domain.predictors import Predictor
    from saerl_assets.domain.spec import VersionSpec

    Bools: TypeAlias = NDArray[np.bool_]
    Doubles: TypeAlias = NDArray[np.float64]
    Facts: TypeAlias = dict[str, str | float]

SIGNALS_SCHEMA = pl.Schema(
    {
        "prompt_id": pl.String(),
        "dense_cluster_id": pl.UInt32(),
        "dense_difficulty": pl.Float64(),
        "true_difficulty": pl.Float64(),
    }
)

MAY_LEARN = ("auto", "proxy", "label")
"""Settings of `difficulty.score` that a proxy may be behind; the others count and sum what the SAE activates."""

ON_LABEL_SCALE = ("proxy", "label")
"""Scores in use on the label's scale; so is whatever else the difficulty of the version holds beside one of them."""


@dataclass(frozen=True)
class ControlSignals:
    """What the controls are planned on, and what a person should know of it."""

    signals: pl.DataFrame
    """Table `control_signals`; empty where no control needs it."""
    facts: Facts
    """By name: where the difficulties come from, in words, and how far they agree with the version's own signals."""


@dataclass(frozen=True)
class KnownLabel:
    """The label of difficulty, as far as it is known."""

    name: str
    values: Doubles
    """[n_prompts] not a number where it is not known."""
    is_train: Bools
    """[n_prompts] whether the prompt is of the training split; nothing is learned from the others."""

    @property
    def fraction(self) -> float:
        """Share of the training prompts whose label is known; 0 of none."""
        known = np.isfinite(self.values[self.is_train])
        return float(known.mean()) if len(known) else 0.0

    def over(self, scores: Doubles, *, on_scale: bool) -> Doubles:
        """The label where it is known, a score elsewhere, on one scale: float64 [n_prompts].

        Args:
            scores: float64 [n_prompts], larger is harder.
            on_scale: Whether they are on the label's scale; else the labelled training prompts bring them to it. Their
                order stays.
        """
        is_known = np.isfinite(self.values)
        learned_from = is_known & self.is_train & np.isfinite(scores)
        if not learned_from.any():
            return scores
        if not on_scale:
            scores = LabelScale.fit(scores[learned_from], self.values[learned_from]).apply(scores)
        return np.where(is_known, self.values, scores)


def columns_planned_on(controls: Collection[str]) -> list[str]:
    """The columns of `control_signals` that these controls are planned on, in the table's order."""
    wanted = {column for arm in controls for column in PLANNED_ON.get(arm, ())}
    return [column for column in SIGNALS_SCHEMA.names() if column in wanted]


def derive_control_signals(
    features: FeatureSet,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
    assignments: pl.DataFrame,
    scores: pl.DataFrame,
    spec: VersionSpec,
    states: Predictor | None = None,
) -> ControlSignals:
    """Signals for the controls `dense_state` and `true_difficulty`, for as many of the two as the spec names.

    Args:
        features: The version's features.
        prompts: Table `prompts`, all splits, in the order of the features.
        labels: Table `labels`, all labels.
        assignments: Table `cluster_assignments`.
        scores: Table `difficulty_scores`.
        spec: The version.
        states: The mean dense state of every prompt; needed for `dense_state` alone.

    Returns:
        One row per prompt in their order, null in the columns of a control that is not named; none where neither is.

    Raises:
        ValueError: `dense_state` is named, and there are no states; a defect of the caller.
        SaerlError: `features_not_finite`, `states_missing`.
    """
    wanted = columns_planned_on(spec.batches.controls)
    if not wanted:
        explanation = "batches.controls names neither dense_state nor true_difficulty."
        return ControlSignals(SIGNALS_SCHEMA.to_frame(), {"explanation": explanation})
    own = _own_signals(prompts, assignments, scores)
    label = KnownLabel(
        spec.difficulty.label,
        known_values(prompts, labels, spec.difficulty.label),
        (own["split"] == "train").to_numpy(),
    )
    signals, facts = own.select("prompt_id"), dict[str, str | float]()
    if "dense_difficulty" in wanted:
        if states is None:
            message = "the control dense_state needs the dense states"
            raise ValueError(message)
        difficulty, words = score_states(states, features, prompts, labels, label, spec)
        signals = signals.with_columns(
            dense_cluster_id=cluster_states(states, own, spec), dense_difficulty=pl.Series(difficulty)
        )
        facts |= {"dense_difficulty": words, **_agreement(own, signals)}
    if "true_difficulty" in wanted:
        on_scale = own["score_name"].is_in(ON_LABEL_SCALE).any()
        values = label.over(own["difficulty"].to_numpy(), on_scale=on_scale)
        signals = signals.with_columns(true_difficulty=pl.Series(values))
        facts |= {"true_difficulty": _true_words(label), "known_fraction": label.fraction}
    empty = [pl.lit(None).alias(name) for name in SIGNALS_SCHEMA if name not in signals.columns]
    whole = signals.with_columns(empty).select(SIGNALS_SCHEMA.names()).cast(SIGNALS_SCHEMA)
    return ControlSignals(whole, facts)


def cluster_states(states: Predictor, own: pl.DataFrame, spec: VersionSpec) -> pl.Series:
    """The cluster of every prompt by its dense state.

    As the SAE's features are clustered (`clusters.fit_clusters`: the same sample, the same seed), into as many clusters
    as those have, from standardised states (`StandardStates`).

    Args:
        states: The mean dense state of every prompt.
        own: `prompt_id` and the version's `cluster_id`.
        spec: Seed and smallest cluster.

    Returns:
        UInt32 [n_prompts], numbered from the largest cluster to the smallest.
    """
    k = max(own["cluster_id"].drop_nulls().n_unique(), 1)
    how = spec.clusters.model_copy(update={"k": k, "weighting": "none"})
    found = fit_clusters(StandardStates.of(states, own["prompt_id"].to_list()), how, spec.seed)
    return pl.Series(found.centroids.ids[found.places], dtype=pl.UInt32)


def score_states(
    states: Predictor,
    features: FeatureSet,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
    label: KnownLabel,
    spec: VersionSpec,
) -> tuple[Doubles, str]:
    """The difficulty of every prompt by its dense state, float64 [n_prompts], and where it comes from, in words.

    It is the version's `difficulty.score` with the dense state in place of the features. Where that may be a proxy, it
    is learned as the version's is (`difficulty.score_difficulty`: same labels, folds and regressor) and taken where the
    version would take one of such figures. Elsewhere the version has the summed activation of the features, or their
    count; here it is the norm of the state summed over the tokens, which no label goes into. With `score = "label"` it
    is the label where that is known, as in the version.
    """
    score = spec.difficulty.score
    why = f"difficulty.score = {score!r} asks for nothing learned."
    values, on_scale = None, False
    if score in MAY_LEARN:
        how = spec.difficulty.model_copy(update={"score": "proxy" if score == "proxy" else "auto"})
        is_named = label.name in spec.labels
        learned = score_difficulty(features, prompts, labels, how, spec.seed, predictor=states, is_named=is_named)
        is_proxy = (pl.col("score_name") == "proxy") & (pl.col("rows") == "held_out")
        held_out = learned.metrics.row(by_predicate=is_proxy, named=True)
        why = held_out["explanation"]
        if set(learned.scores["score_name"]) == {"proxy"}:
            values, on_scale = learned.scores["difficulty"].to_numpy(), True
            figure = "" if held_out["spearman"] is None else f", held-out Spearman {held_out['spearman']:.3f}"
            why = f"The proxy{figure}. {why}"
    if values is None:
        values = summed_norms(states, prompts["n_tokens"].to_numpy())
        why = f"The norm of the dense state, summed over the tokens. {why}"
    return label.over(values, on_scale=on_scale) if score == "label" else values, why


def _own_signals(prompts: pl.DataFrame, assignments: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """prompt_id, split, cluster_id, difficulty and score_name in the order of the prompts."""
    own = prompts.select("prompt_id", "split")
    for frame in (
        assignments.select("prompt_id", "cluster_id"),
        scores.select("prompt_id", "difficulty", "score_name"),
    ):
        own = own.join(frame, on="prompt_id", how="left", maintain_order="left")
    return own


def _agreement(own: pl.DataFrame, signals: pl.DataFrame) -> Facts:
    """How like the version's own signals the dense ones are: adjusted Rand index of the clusters, Spearman."""
    from sklearn.metrics import adjusted_rand_score

    both = own.select("cluster_id", "difficulty").hstack(signals.drop("prompt_id")).drop_nulls()
    facts: Facts = {"n_dense_clusters": signals["dense_cluster_id"].n_unique()}
    if both.height:
        pair = (both[name].to_numpy() for name in ("cluster_id", "dense_cluster_id"))
        facts["cluster_agreement"] = float(adjusted_rand_score(*pair))
    ranks = spearman(both["dense_difficulty"].to_numpy(), both["difficulty"].to_numpy())
    return facts if ranks is None else facts | {"difficulty_agreement": ranks}


def _true_words(label: KnownLabel) -> str:
    if not label.fraction:
        return f"No training prompt has label {label.name!r}: all have the score in use."
    if label.fraction == 1:
        return f"Label {label.name!r} of every training prompt."
    known = f"Label {label.name!r} of {100 * label.fraction:.1f}% of the training prompts"
    return f"{known}; the score in use, on the label's scale, of the others."
