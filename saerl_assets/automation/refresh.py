"""Declarative automation: what labels that arrive later refresh by themselves, and how old things may become.

Belongs here: automation conditions, their sensor, freshness policies. Does not belong here: files and logs that arrive
(sensors), and what refreshing computes.

New labels refresh what was learned from labels: the folded labels, the evidence, difficulty and quality scores, and the
report. What a training measured refreshes the report, which shows it. A manifest is planned anew only for a version
whose spec says `[batches] replan = true`, together with what follows from it; the manifest in use stays as it is,
because manifests never change. Nothing is made that was not made before: building a version is a decision of its own.
All of it is off until the sensor is turned on.
"""

import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.placement import Placement

REPLAN_METADATA = "replan"
"""Metadata of the asset `versions`: whether the version's spec says so. Sensors never open the warehouse."""
STARTED_BY_TAG = "saerl/started_by"

REFRESHED_BY: dict[str, tuple[str, ...]] = {
    "labels": ("label_observations",),
    "signal_evidence": ("labels",),
    "evidence_curve": ("labels",),
    "evidence_verdicts": ("labels",),
    "difficulty_proxy": ("labels", "signal_evidence"),
    "difficulty_scores": ("labels", "signal_evidence"),
    "quality_probe": ("labels", "signal_evidence"),
    "probe_calibration": ("labels", "signal_evidence"),
    "quality_scores": ("quality_probe",),
    "control_signals": ("labels", "difficulty_scores"),
    "version_report": (
        "evidence_verdicts",
        "difficulty_scores",
        "probe_calibration",
        "quality_scores",
        "control_signals",
        "training_feedback",
    ),
}
"""By asset the updates that refresh it; updates of its other dependencies do not."""

REPLANNED_BY: dict[str, tuple[str, ...]] = {
    "batch_manifest": ("difficulty_scores", "quality_scores", "control_signals"),
    "deferred_prompts": ("difficulty_scores", "quality_scores", "control_signals"),
    "manifests": ("difficulty_scores", "quality_scores", "control_signals"),
    "batch_metrics": ("batch_manifest",),
    "trainer_exports": ("batch_manifest",),
    "artifacts": ("trainer_exports",),
}
"""The same for versions whose spec says `replan`, and for no others."""

CHECKED_WITHIN = timedelta(hours=36)
"""What a nightly schedule makes is stale after a night was missed."""
CHECKED_NIGHTLY = ("cluster_drift", "version_drift", "artifacts")


class SpecSaysReplan(dg.AutomationCondition[dg.AssetKey]):
    """True for versions whose spec says `[batches] replan = true`, as the asset `versions` noted it."""

    @property
    def name(self) -> str:
        """What the UI shows."""
        return "spec_says_replan"

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """Looks the candidates up in the event log."""
        versions = dg.AssetKey([*context.key.path[:-1], "versions"])
        instance = context.asset_graph_view.instance
        candidates = context.candidate_subset.expensively_compute_partition_keys()
        found = {key for key in candidates if _says_replan(instance, versions, key)}
        subset = context.asset_graph_view.get_subset_from_partition_keys(context.key, DATASET_VERSIONS, found)
        return dg.AutomationResult(context, subset)


def condition_of(table: str, placement: Placement) -> dg.AutomationCondition[Any] | None:
    """When the asset that fills a table is made again by itself; None where it never is."""
    causes = REFRESHED_BY.get(table) or REPLANNED_BY.get(table)
    if causes is None:
        return None
    arrived = dg.AutomationCondition.any_deps_updated().allow(dg.AssetSelection.assets(*map(placement.key, causes)))
    condition = (
        arrived.since_last_handled()
        & ~dg.AutomationCondition.missing()
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    )
    if table in REPLANNED_BY:
        return (condition & SpecSaysReplan()).with_label("new scores, and the spec says replan")
    return condition.with_label("new labels or feedback" if "training_feedback" in causes else "new labels")


def freshness_of(table: str) -> dg.FreshnessPolicy | None:
    """How old the newest of an asset may become where schedules run; None where age says nothing.

    Dataset versions never change and do not age. What watches them does.
    """
    if table not in CHECKED_NIGHTLY:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=2 * CHECKED_WITHIN, warn_window=CHECKED_WITHIN)


def refresh_sensor(
    placement: Placement, tables: Sequence[str], status: dg.DefaultSensorStatus
) -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates the conditions of these assets and of no others, one run a version.

    A project's own `default_automation_condition_sensor` leaves them alone.
    """
    conditioned = [table for table in tables if table in REFRESHED_BY or table in REPLANNED_BY]
    with warnings.catch_warnings():
        # A condition of our own is evaluated where our code is; Dagster calls that parameter beta.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.AutomationConditionSensorDefinition(
            placement.name("refresh"),
            target=dg.AssetSelection.assets(*map(placement.key, conditioned)).without_checks(),
            default_status=status,
            use_user_code_server=True,
            emit_backfills=False,
            run_tags={STARTED_BY_TAG: "refresh"},
            minimum_interval_seconds=60,
            description="New labels refresh scores, evidence and report, feedback of a training the report; a manifest "
            "is planned only where the spec says replan.",
        )


def _says_replan(instance: dg.DagsterInstance, versions: dg.AssetKey, key: str) -> bool:
    wanted = dg.AssetRecordsFilter(asset_key=versions, asset_partitions=[key])
    records = instance.fetch_materializations(wanted, limit=1).records
    made = records[0].asset_materialization if records else None
    said = made.metadata.get(REPLAN_METADATA) if made else None
    return said is not None and said.value is True
