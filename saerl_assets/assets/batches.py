"""Assets `batch_manifest`, `deferred_prompts`, `curriculum_steps`, `manifests` and `batch_metrics`: the order.

Belongs here: planning from a version's scores and making the new manifest the current one. Does not belong here: the
planners.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import outs, table_asset
from saerl_assets.domain.batch_metrics import batch_metrics as measure_batches
from saerl_assets.domain.batches import plan_manifest
from saerl_assets.domain.candidates import PlannedOn, gather_candidates
from saerl_assets.domain.curriculum import STEP_SCHEMA, batches_of, lock_prompts, step_row
from saerl_assets.domain.features import FeatureSet
from saerl_assets.domain.spec import digest
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.batch_metrics import figure_batch_clusters, figure_batch_metrics
from saerl_assets.report.batches import figure_batch_manifest, figure_deferred_prompts
from saerl_assets.report.feedback import figure_curriculum_steps
from saerl_assets.resources.curriculum import curriculum_so_far, epoch_to_plan
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.manifests import followed_manifest, next_moment
from saerl_assets.resources.metadata import picture


@dg.multi_asset(
    name="plan",
    outs=outs(
        "batches",
        {"batch_manifest": ("polars",), "deferred_prompts": ("polars",), "curriculum_steps": (), "manifests": ()},
    ),
    partitions_def=DATASET_VERSIONS,
)
def plan(  # noqa: PLR0913, PLR0917 - an argument is an asset that it is planned from
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompts: pl.DataFrame,
    cluster_assignments: pl.DataFrame,
    difficulty_scores: pl.DataFrame,
    quality_scores: pl.DataFrame,
    near_duplicates: pl.DataFrame,
    contamination: pl.DataFrame,
    control_signals: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """Both planners and every control arm from the same prompts, as one manifest that becomes the current one."""
    version = home.version(context.partition_key)
    spec = version.spec
    followed = followed_manifest(home, version)
    tables = PlannedOn(
        prompts,
        cluster_assignments,
        difficulty_scores,
        quality_scores,
        near_duplicates,
        contamination,
        control_signals,
    )
    candidates = gather_candidates(tables, spec)
    feedback, batches = spec.batches.feedback, spec.batches
    epoch = epoch_to_plan(home, version)
    if feedback is not None and epoch is not None:
        candidates = lock_prompts(candidates, epoch, batches, feedback)
        batches, followed = batches_of(batches, epoch), epoch.parent_manifest_id or followed
    planned = plan_manifest(candidates, batches, key=spec.key, seed=spec.seed)
    order = picture(figure_batch_manifest(planned.manifest, spec.batches.planner), "difficulty over steps")
    exported = planned.manifest.filter(pl.col("arm") == spec.batches.planner)
    yield dg.MaterializeResult(
        asset_key="batch_manifest",
        value=planned.manifest,
        metadata={"manifest_id": planned.manifest_id, "figure": order},
    )
    yield dg.MaterializeResult(
        asset_key="deferred_prompts",
        value=planned.deferred,
        metadata={
            "figure": picture(
                figure_deferred_prompts(planned.deferred, spec.batches.planner), "deferred prompts by reason"
            )
        },
    )
    steps = pl.DataFrame(schema=STEP_SCHEMA)
    if feedback is not None and epoch is not None:
        steps = step_row(epoch, planned.manifest_id, feedback)
    yield dg.MaterializeResult(
        asset_key="curriculum_steps",
        value=steps,
        metadata={
            "decision": epoch.explanation if epoch else "The spec has no [batches.feedback].",
            "figure": picture(figure_curriculum_steps(curriculum_so_far(home, version, steps)), "epoch by epoch"),
        },
    )
    inputs = candidates.sort("prompt_id").write_json()
    row = pl.DataFrame(
        {
            "manifest_id": planned.manifest_id,
            "parent_manifest_id": pl.Series([followed], dtype=pl.String),
            "planner": spec.batches.planner,
            "n_arms": planned.manifest["arm"].n_unique(),
            "n_epochs": spec.batches.epochs,
            "n_steps": exported.select("epoch", "step").n_unique(),
            "n_prompts": exported["prompt_id"].n_unique(),
            "inputs_digest": digest([version.digest, inputs]),
            "created_at": next_moment(home, spec.key),
        }
    )
    yield dg.MaterializeResult(
        asset_key="manifests", value=row, metadata={"manifest_id": planned.manifest_id, "figure": order}
    )


@table_asset("batches", "polars")
def batch_metrics(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    batch_manifest: pl.DataFrame,
    prompt_features: FeatureSet,
    quality_scores: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per batch of a manifest: how diverse it is, how hard, how good, for every arm."""
    planner = home.version(context.partition_key).spec.batches.planner
    measured = measure_batches(batch_manifest, prompt_features, quality_scores)
    return dg.MaterializeResult(
        value=measured,
        metadata={
            "mean_cluster_entropy": float(
                measured.filter(pl.col("arm") == planner)["cluster_entropy"].mean() or 0.0  # type: ignore[arg-type]
            ),
            "figure": picture(figure_batch_metrics(measured, planner), "measures of the batches over steps"),
            "clusters": picture(figure_batch_clusters(batch_manifest, planner), "clusters of the batches over steps"),
        },
    )
