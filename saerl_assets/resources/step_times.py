"""How long the steps took that made what an arm is planned on, as Dagster recorded it.

Belongs here: which steps those are, finding them and their seconds. Does not belong here: what they are held against.
"""

from collections.abc import Iterable, Sequence

import dagster as dg

from saerl_assets.domain.spec import VersionSpec
from saerl_assets.domain.trial import BASELINE, SignalCost

READING = ("sae_weights", "sae_health", "prompt_features")
MEMBERS = ("quality_probe", "quality_scores", "near_duplicates", "batch_manifest")
SCORED = ("rollouts", "difficulty_scores")
CLUSTERED = ("cluster_assignments",)
"""One asset of each step; what only the report needs is left out."""

PLANNED_ON = {
    "easy_to_hard": (*READING, *MEMBERS, *SCORED),
    "length_difficulty": (*READING, *MEMBERS, *CLUSTERED),
    "dense_state": (*READING, *MEMBERS, "rollouts", "control_signals"),
    "true_difficulty": (*READING, *MEMBERS, *CLUSTERED, *SCORED, "control_signals"),
}
"""The steps that an arm needs; the others, the planners among them, need those of clusters and difficulty."""
ON_GPU = ("sae_weights", "sae_health", "prompt_features", "rollouts", "control_signals")
N_RECORDS = 20
"""So many of an asset's last materialisations are looked at."""


def signal_costs(
    instance: dg.DagsterInstance, prefix: Sequence[str], spec: VersionSpec, arms: Iterable[str], *, device: str
) -> dict[str, SignalCost]:
    """What the signals took that each arm is planned on; an arm of which a step is not on record is left out.

    Of a step that ran several times the longest counts: what was found already made costs nothing the second time. What
    another version had made before costs this one nothing either. `signal_evidence` counts where it chooses what a
    proxy or probe learns from. All rollouts of the version count, also where a proxy learns from fewer.

    Args:
        instance: Where the runs are recorded.
        prefix: Before the assets' names.
        spec: The version.
        arms: Which ones; the baseline needs no signals, though it follows the filters too.
        device: Where the steps ran; only those on `cuda` held a GPU.
    """
    is_chosen = "best" in {spec.difficulty.predictor, spec.quality.predictor}
    choosing = ("signal_evidence",) if is_chosen else ()
    ranged = SCORED if spec.difficulty.has_range else ()  # difficulty says who takes part, in whatever order
    needed = {
        arm: {*PLANNED_ON.get(arm, (*READING, *MEMBERS, *CLUSTERED, *SCORED)), *choosing, *ranged}
        for arm in arms
        if arm != BASELINE
    }
    taken = {
        asset: _seconds(instance, dg.AssetKey([*prefix, asset]), spec.key)
        for asset in sorted({asset for assets in needed.values() for asset in assets})
    }
    costs = {}
    for arm, assets in needed.items():
        known = {asset: seconds for asset in assets if (seconds := taken[asset]) is not None}
        if len(known) == len(assets):
            on_gpu = sum(seconds for asset, seconds in known.items() if asset in ON_GPU)
            costs[arm] = SignalCost(sum(known.values()), on_gpu if device.startswith("cuda") else 0.0)
    return costs


def _seconds(instance: dg.DagsterInstance, asset: dg.AssetKey, key: str) -> float | None:
    """The longest of an asset's steps for one version."""
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[key])
    longest = None
    for record in instance.fetch_materializations(wanted, limit=N_RECORDS).records:
        event = record.event_log_entry.dagster_event
        if event is None or event.step_key is None:
            continue
        for stats in instance.get_run_step_stats(record.run_id, [event.step_key]):
            if stats.start_time is not None and stats.end_time is not None:
                longest = max(longest or 0.0, stats.end_time - stats.start_time)
    return longest
