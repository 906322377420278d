"""Assets `near_duplicates` and `contamination`: prompts that say the same thing twice, and evaluation rows among them.

Belongs here: gathering prompts, features, clusters and evaluation files. Does not belong here: what is near, what is
shared, and what is done about it (batches).
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import outs
from saerl_assets.domain.contamination import EvaluationRows, find_contamination, take_evaluation
from saerl_assets.domain.features import FeatureSet
from saerl_assets.domain.near_duplicates import find_near_duplicates
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.hygiene import figure_contamination, figure_near_duplicates
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.progress import progress_lines
from saerl_assets.storage.catalog import Version
from saerl_assets.storage.sources import read_source


@dg.multi_asset(
    name="hygiene",
    outs=outs("signals", {"near_duplicates": ("polars",), "contamination": ("polars",)}),
    partitions_def=DATASET_VERSIONS,
)
def hygiene(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompts: pl.DataFrame,
    prompt_features: FeatureSet,
    cluster_assignments: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """Near-duplicates by text and by features, and training prompts that repeat evaluation rows; nothing is removed."""
    version = home.version(context.partition_key)
    spec = version.spec
    if spec.hygiene.evaluation:
        home.catalog().verify_sources(version)
    progress = progress_lines(context.log.info, "hygiene")
    prompts = prompts.sort("prompt_id")
    near = find_near_duplicates(
        prompts, prompt_features, cluster_assignments, spec.hygiene, spec.clusters.pooling, progress
    )
    yield dg.MaterializeResult(
        asset_key="near_duplicates",
        value=near.groups,
        metadata={
            "n_groups": near.groups["group_id"].n_unique(),
            "n_copies": int((near.groups["role"] == "copy").sum()),
            "copies_are": "folded"
            if spec.hygiene.near_duplicates == "fold"
            else "kept, as hygiene.near_duplicates says",
            "figure": picture(
                figure_near_duplicates(near.groups, cluster_assignments), "near-duplicates by cluster and by overlap"
            ),
        },
    )
    evaluations = evaluation_rows_of(version)
    found = find_contamination(prompts, evaluations, near.pairs, spec.hygiene, progress)
    yield dg.MaterializeResult(
        asset_key="contamination",
        value=found,
        metadata={
            "n_contaminated": found["prompt_id"].n_unique(),
            "n_from_own_split": int((found["evaluation"] == "evaluation split").sum()),
            "evaluation_files": {rows.evaluation: {**rows.counts, **rows.notes} for rows in evaluations}
            or "none; name them with [[hygiene.evaluation]] in the spec",
            "figure": picture(figure_contamination(found), "prompts that repeat evaluation rows"),
        },
    )


def evaluation_rows_of(version: Version) -> list[EvaluationRows]:
    """The rows of every evaluation file that the spec names."""
    files = []
    for place, named in enumerate(version.spec.hygiene.evaluation):
        source = version.sources[f"hygiene.evaluation.{place}"]
        files.append(
            take_evaluation(
                read_source(source),
                evaluation=named.source,
                field_path=named.field or version.spec.data.prompt,
                key=f"hygiene.evaluation.{place}.field" if named.field else "data.prompt",
                file=source.location,
            )
        )
    return files
