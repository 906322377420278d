"""How long the steps took that made a version's signals, as Dagster recorded it.

Belongs here: finding the steps and their seconds. Does not belong here: what they are weighed against.
"""

from collections.abc import Sequence

import dagster as dg

SIGNALS = (
    "sae_weights",
    "sae_health",
    "prompt_features",
    "cluster_assignments",
    "near_duplicates",
    "rollouts",
    "signal_evidence",
    "difficulty_scores",
    "quality_probe",
    "quality_scores",
    "batch_manifest",
)
"""One asset of each step that the order is made by; what only controls and reports need is left out."""
N_RECORDS = 20
"""So many of an asset's last materialisations are looked at."""


def signal_seconds(instance: dg.DagsterInstance, prefix: Sequence[str], key: str) -> float | None:
    """Seconds of the steps that made the signals of a version; None if one of them is not on record.

    Of a step that ran several times the longest counts: what was found already made costs nothing the second time. What
    another version had made before costs this one nothing either.

    Args:
        instance: Where the runs are recorded.
        prefix: Before the assets' names.
        key: The version.
    """
    taken = [_seconds(instance, dg.AssetKey([*prefix, asset]), key) for asset in SIGNALS]
    found = [seconds for seconds in taken if seconds is not None]
    return sum(found) if len(found) == len(taken) else None


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
