"""What the page of a version is made from.

Belongs here: the frames, and the few facts that several sections take from them. Does not belong here: what
is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from saerl_assets.domain.candidates import with_ranks
from saerl_assets.domain.spec import VersionSpec, from_canonical


@dataclass(frozen=True)
class ReportInputs:
    """Tables of one version, whole, each with at least the columns of `sql/tables/`.

    A stage that has not run is a frame without rows. `batch_manifest`, `batch_metrics`, `deferred_prompts`
    and `trainer_exports` are those of one manifest.
    """

    versions: pl.DataFrame
    """The version's one row."""
    prompts: pl.DataFrame
    """All prompts; `prompt_id, position, text, topic, split, n_tokens, n_rows` are enough. The page shows a
    sample."""
    rejected_rows: pl.DataFrame
    labels: pl.DataFrame
    rollouts: pl.DataFrame
    outcomes: pl.DataFrame
    sae_weights: pl.DataFrame
    sae_health: pl.DataFrame
    feature_density: pl.DataFrame
    clusters: pl.DataFrame
    cluster_assignments: pl.DataFrame
    cluster_quality: pl.DataFrame
    cluster_drift: pl.DataFrame
    version_drift: pl.DataFrame
    near_duplicates: pl.DataFrame
    contamination: pl.DataFrame
    signal_evidence: pl.DataFrame
    evidence_curve: pl.DataFrame
    evidence_verdicts: pl.DataFrame
    difficulty_scores: pl.DataFrame
    difficulty_proxy: pl.DataFrame
    quality_probe: pl.DataFrame
    probe_calibration: pl.DataFrame
    quality_scores: pl.DataFrame
    control_signals: pl.DataFrame
    batch_manifest: pl.DataFrame
    batch_metrics: pl.DataFrame
    deferred_prompts: pl.DataFrame
    trainer_exports: pl.DataFrame
    artifacts: pl.DataFrame
    cluster_map: pl.DataFrame
    feature_examples: pl.DataFrame
    training_feedback: pl.DataFrame
    trial_evaluations: pl.DataFrame
    trial_summary: pl.DataFrame
    curriculum_steps: pl.DataFrame
    version_measures: pl.DataFrame
    """View of that name: this version and those that it continues."""
    trainer_settings: pl.DataFrame
    """`trainer`, `arm`, `file` and `text` of the settings beside each export of the manifest."""
    generated_with: str
    """Names and versions of the software, such as 'saerl-assets 0.1.0, Python 3.11.7'; the page has no
    clock."""

    @cached_property
    def spec(self) -> VersionSpec:
        """The version's spec."""
        return from_canonical(self.versions["spec"][0])

    @property
    def planner(self) -> str:
        """The arm that is exported."""
        return self.spec.batches.planner

    @property
    def manifest_id(self) -> str | None:
        """The manifest that the page describes."""
        found = [*self.batch_manifest["manifest_id"].head(1), *self.versions["current_manifest_id"].head(1)]
        return str(found[0]) if found and found[0] else None

    @cached_property
    def ordered(self) -> pl.DataFrame:
        """The slots of the exported arm, in order."""
        return self.batch_manifest.filter(pl.col("arm") == self.planner).sort("epoch", "step", "slot")

    @cached_property
    def stages(self) -> pl.DataFrame:
        """What became of the source's rows so far: `stage` (String) and `n_rows` (Int64)."""
        train = self.prompts.filter(pl.col("split") == "train")
        counts = [("rows in the source", self.n_source_rows), ("distinct prompts", self.prompts.height)]
        counts.append(("for training", train.height))
        if self.quality_scores.height:
            kept = self.quality_scores.filter("kept").join(train, on="prompt_id", how="semi")
            counts.append(("kept by quality", kept.height))
            if self.spec.difficulty.has_range and self.difficulty_scores.height:
                scored = train.select("prompt_id").join(self.difficulty_scores, on="prompt_id")
                inside = with_ranks(scored, self.spec.difficulty).filter(pl.col("out_of_range").is_null())
                counts.append(("in the difficulty range", inside.join(kept, on="prompt_id", how="semi").height))
        if self.ordered.height:
            counts.append(("in the order", self.ordered["prompt_id"].n_unique()))
        return pl.DataFrame(counts, schema={"stage": pl.String, "n_rows": pl.Int64}, orient="row")

    @property
    def n_source_rows(self) -> int:
        """Rows that were read from the source."""
        return int(self.prompts["n_rows"].sum()) + self.rejected_rows.height
