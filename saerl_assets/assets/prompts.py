"""Assets `prompts`, `preference_pairs`, `rejected_rows`, `label_observations`: one pass over the source.

Belongs here: wiring the source, the tokenizer and the intake together. Does not belong here: the rules of the intake.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import outs
from saerl_assets.domain.labels import observations_from_file
from saerl_assets.domain.prompts import check_rejected, take_prompts
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.preference_pairs import figure_preference_pairs
from saerl_assets.report.prompts import figure_label_observations, figure_prompts, figure_rejected_rows
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.progress import progress_lines
from saerl_assets.storage.sources import estimate_rows, read_source


@dg.multi_asset(
    name="intake",
    outs=outs(
        "data",
        {"rejected_rows": (), "prompts": ("polars",), "preference_pairs": (), "label_observations": ("polars",)},
    ),
    deps=["versions"],
    partitions_def=DATASET_VERSIONS,
)
def intake(
    context: dg.AssetExecutionContext, home: HomeResource, compute: ComputeResource
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """One pass over the source: prompts with duplicates folded in, their pairs and labels, rows that were not taken."""
    version = home.version(context.partition_key)
    home.catalog().verify_sources(version)
    spec, source = version.spec, version.sources["data"]
    tokeniser = compute.tokeniser(version, progress_lines(context.log.info, "reader"))
    taken = take_prompts(
        read_source(source),
        spec,
        tokeniser,
        file=source.location,
        n_rows=spec.data.limit or estimate_rows(source),
        progress=progress_lines(context.log.info, "prompts"),
    )
    yield dg.MaterializeResult(
        asset_key="rejected_rows",
        value=taken.rejected,
        metadata={
            "figure": picture(
                figure_rejected_rows(taken.rejected, n_rows=taken.counts["rows"]), "rejected rows by reason"
            )
        },
    )
    check_rejected(taken, spec)
    yield dg.MaterializeResult(
        asset_key="prompts",
        value=taken.prompts,
        metadata={
            "figure": picture(figure_prompts(taken.prompts), "tokens per prompt"),
            **taken.counts,
            **taken.notes,
            "stripped_for_reading": taken.affixes,
        },
    )
    yield dg.MaterializeResult(
        asset_key="preference_pairs",
        value=taken.pairs,
        metadata={"figure": picture(figure_preference_pairs(taken.pairs), "pairs per prompt")},
    )
    named = sorted(name for name, label in spec.labels.items() if label.source)
    files = [
        observations_from_file(
            read_source(version.sources[f"labels.{name}"]),
            name,
            taken.prompts,
            spec=spec,
            file=version.sources[f"labels.{name}"].location,
            digest=version.sources[f"labels.{name}"].digest,
            progress=progress_lines(context.log.info, name),
        )
        for name in named
    ]
    now = datetime.now(UTC).replace(tzinfo=None)
    observed = pl.concat([taken.observations, *(found.observations for found in files)]).with_columns(
        observed_at=pl.lit(now, pl.Datetime("us"))
    )
    yield dg.MaterializeResult(
        asset_key="label_observations",
        value=observed,
        metadata={
            "label_files": {name: {**found.counts, **found.notes} for name, found in zip(named, files, strict=True)},
            "figure": picture(figure_label_observations(observed), "observed values by label"),
        },
    )
