"""Assets `trial_evaluations` and `trial_summary`: whether training in the version's order takes fewer steps.

Belongs here: wiring the trainings to their tables. Does not belong here: training, and what the results show.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import GPU_POOL, outs
from saerl_assets.domain.trial import EVALUATION_SCHEMA, SUMMARY_SCHEMA, summarise_trial
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.training_trial import figure_trial_evaluations, figure_trial_summary
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.progress import progress_lines
from saerl_assets.resources.step_times import signal_costs
from saerl_assets.resources.trials import MINUTES_TAG, open_trial
from saerl_assets.trial.runs import run_trial


@dg.multi_asset(
    name="training_trial",
    outs=outs("records", {"trial_evaluations": ("torch",), "trial_summary": ("polars",)}),
    deps=["manifests"],
    partitions_def=DATASET_VERSIONS,
    pool=GPU_POOL,
)
def training_trial(
    context: dg.AssetExecutionContext, home: HomeResource, compute: ComputeResource
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """The policy of `[trial]`, trained in the order of several arms: only where a person asks for it.

    Nothing is done for a version without `[trial]`. Killed anywhere and run again, it trains what is missing. The run's
    tag saerl/trial_minutes ends it after so many minutes; 0 takes what `saerl trial` has trained, and trains nothing.
    """
    version = home.version(context.partition_key)
    spec = version.spec.trial
    if spec is None:
        evaluations, summary = pl.DataFrame(schema=EVALUATION_SCHEMA), pl.DataFrame(schema=SUMMARY_SCHEMA)
        trial_id, n_trainings = "", 0
    else:
        trial = open_trial(home, compute, version.key)
        minutes = context.run.tags.get(MINUTES_TAG)
        say = progress_lines(context.log.info, "trial")
        evaluations = run_trial(trial, say, minutes=float(minutes) if minutes else None)
        prefix = context.asset_key_for_output("trial_summary").path[:-1]
        costs = signal_costs(context.instance, prefix, version.spec, trial.arms, device=trial.device)
        summary = summarise_trial(evaluations, target=spec.target, seed=version.spec.seed, costs=costs)
        trial_id, n_trainings = trial.folder.name, len(trial.trainings())
    n_done = evaluations.select("arm", "seed").n_unique()
    done = {"trainings": n_done, "trainings_asked_for": n_trainings}
    yield dg.MaterializeResult(
        asset_key="trial_evaluations",
        value=evaluations.with_columns(trial_id=pl.lit(trial_id)),
        metadata={**done, "figure": picture(figure_trial_evaluations(evaluations), "accuracy over steps, arm by arm")},
    )
    yield dg.MaterializeResult(
        asset_key="trial_summary",
        value=summary.with_columns(trial_id=pl.lit(trial_id)),
        metadata={
            **done,
            "verdict": "\n".join(summary["verdict"]) or "Nothing was trained.",
            "figure": picture(figure_trial_summary(summary), "steps to the target beside shuffle's"),
        },
    )
