"""Assets `rollouts` and `outcomes`: the policy's own answers, from which labels are made.

Belongs here: wiring the policy, the sample and the verifier together, and adding what they say to the labels. Does not
belong here: generation, scoring, which prompts are answered.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import GPU_POOL, outs
from saerl_assets.domain.outcomes import OUTCOME_SCHEMA, ROLLOUT_SCHEMA
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.outcomes import figure_outcomes, figure_rollouts
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.progress import progress_lines
from saerl_assets.resources.rollouts import roll_out


@dg.multi_asset(
    name="rolling_out",
    outs=outs("data", {"rollouts": ("torch",), "outcomes": ("polars",)}),
    deps=["label_observations"],  # which its observations join
    partitions_def=DATASET_VERSIONS,
    pool=GPU_POOL,
)
def rolling_out(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    compute: ComputeResource,
    prompts: pl.DataFrame,
    cluster_assignments: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """The policy answers a sample of every cluster, and its answers are scored: labels without a label file.

    Nothing is done for a version without `[outcomes]`. Killed anywhere and run again, it samples what is missing.
    """
    version = home.version(context.partition_key)
    if version.spec.outcomes is None:
        nothing = {"rollouts": pl.DataFrame(schema=ROLLOUT_SCHEMA), "outcomes": pl.DataFrame(schema=OUTCOME_SCHEMA)}
        for name, draw in (("rollouts", figure_rollouts), ("outcomes", figure_outcomes)):
            shown = {"figure": picture(draw(nothing[name]), "no policy has answered")}
            yield dg.MaterializeResult(asset_key=name, value=nothing[name], metadata=shown)
        return
    say = progress_lines(context.log.info, "policy")
    done = roll_out(home, compute, version, prompts, cluster_assignments, say)
    yield dg.MaterializeResult(
        asset_key="rollouts",
        value=done.rollouts,
        metadata={**done.figures, "figure": picture(figure_rollouts(done.rollouts), "tokens of an answer")},
    )
    now = pl.lit(datetime.now(UTC).replace(tzinfo=None), pl.Datetime("us"))
    n_added = home.warehouse().store("label_observations", done.observations.with_columns(observed_at=now), version.key)
    if n_added:
        context.log_event(
            dg.AssetMaterialization(
                [*context.asset_key_for_output("outcomes").path[:-1], "label_observations"],
                description="Labels from the policy's own answers were added.",
                metadata={"rows_added": n_added},
                partition=version.key,
            )
        )
    yield dg.MaterializeResult(
        asset_key="outcomes",
        value=done.outcomes,
        metadata={
            "mean_pass_rate": float(done.rollouts.select(pl.col("score").mean()).item()),
            "truncated_fraction": float(done.rollouts.select(pl.col("is_truncated").mean()).item()),
            "observations_added": n_added,
            "figure": picture(figure_outcomes(done.outcomes), "pass rates of the policy"),
        },
    )
    done.forget()
