"""Assets `training_feedback`, `rejected_feedback` and `feedback_files`: labels and training logs that arrive later.

Belongs here: taking up the files that a version was given. Does not belong here: what a row means, when a file is
given, what follows from it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import outs
from saerl_assets.domain.training_feedback import difficulty_correlation
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.feedback import figure_feedback_files, figure_rejected_feedback, figure_training_feedback
from saerl_assets.resources.curriculum import epoch_that_is_due
from saerl_assets.resources.feedback import TakenUp, take_up
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.storage.catalog import Version


@dg.multi_asset(
    name="feedback",
    outs=outs("data", {"rejected_feedback": (), "training_feedback": ("polars",), "feedback_files": ()}),
    partitions_def=DATASET_VERSIONS,
)
def feedback(
    context: dg.AssetExecutionContext, home: HomeResource, prompts: pl.DataFrame
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """One pass over the files of labels and training logs that arrived since: each is taken up once, and appended.

    Labels join `label_observations`, which is what refreshes scores and evidence. Killed anywhere and run again, it
    adds what is missing; the row of a file in `feedback_files` comes last.
    """
    version = home.version(context.partition_key)
    taken = take_up(home, version, prompts, datetime.now(UTC).replace(tzinfo=None))
    for reason in taken.refused:
        context.log.warning(f"Set aside: {reason}")
    yield dg.MaterializeResult(
        asset_key="rejected_feedback",
        value=taken.rejected,
        metadata={"figure": picture(figure_rejected_feedback(taken.rejected), "rows that were not taken, by reason")},
    )
    if _add_observations(home, version, taken):
        context.log_event(
            dg.AssetMaterialization(
                [*context.asset_key_for_output("feedback_files").path[:-1], "label_observations"],
                description="Labels that arrived later were added.",
                metadata={"rows_added": taken.observations.height},
                partition=version.key,
            )
        )
    warehouse = home.warehouse(context.log.warning)
    difficulty = warehouse.rows("difficulty_scores", ["prompt_id", "difficulty"], dataset_version=version.key)
    known = warehouse.rows("training_feedback", dataset_version=version.key).drop("dataset_version")
    measured = pl.concat([known, taken.feedback]).unique(maintain_order=True)
    yield dg.MaterializeResult(
        asset_key="training_feedback",
        value=taken.feedback,
        metadata={
            **_correlations(measured, difficulty),
            "figure": picture(figure_training_feedback(measured, difficulty), "difficulty against what was measured"),
        },
    )
    due = epoch_that_is_due(home, version)
    known = warehouse.rows("feedback_files", dataset_version=version.key).drop("dataset_version")
    files = pl.concat([known, taken.files])
    yield dg.MaterializeResult(
        asset_key="feedback_files",
        value=taken.files,
        metadata={
            "files_taken": taken.files.height,
            "rows_unmatched": int(taken.files["n_unmatched"].sum()),
            "files_set_aside": taken.refused,
            "next_epoch_is_due": due is not None,  # automation reads it here
            "next_epoch": due.explanation if due else "The feedback does not ask for another epoch.",
            "figure": picture(figure_feedback_files(files), "rows by file"),
        },
    )


def _add_observations(home: HomeResource, version: Version, taken: TakenUp) -> int:
    """Appends the labels; returns how many rows that added."""
    if taken.observations.is_empty():
        return 0
    return home.warehouse().store("label_observations", taken.observations, version.key)


def _correlations(measured: pl.DataFrame, difficulty: pl.DataFrame) -> dict[str, float | int]:
    """Spearman's correlation of difficulty with each thing that a training measured: of the training that came last."""
    if measured.is_empty():
        return {}
    run = measured.sort("observed_at", "run_name")["run_name"][-1]
    of_run = measured.filter(pl.col("run_name") == run)
    found: dict[str, float | int] = {"steps_measured": of_run["step"].n_unique()}
    for measure in ("reward", "loss", "pass_rate"):
        n_prompts, correlation = difficulty_correlation(of_run, difficulty, measure)
        if correlation is not None:
            found |= {f"difficulty_{measure}_spearman": correlation, f"prompts_with_{measure}": n_prompts}
    return found
