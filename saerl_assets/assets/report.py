"""Asset `version_report`: one HTML page per version.

Belongs here: gathering what the page shows. Does not belong here: the page.
"""

import platform

import dagster as dg
import polars as pl

import saerl_assets
from saerl_assets.assets.rooms import table_asset
from saerl_assets.disk import file_digest, write_whole
from saerl_assets.report.inputs import ReportInputs
from saerl_assets.report.page import render_report
from saerl_assets.report.versions import figure_version_report
from saerl_assets.resources.exports import exported_settings
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture

OF_A_VERSION = (
    "versions",
    "rejected_rows",
    "labels",
    "rollouts",
    "outcomes",
    "sae_weights",
    "sae_health",
    "feature_density",
    "clusters",
    "cluster_assignments",
    "cluster_quality",
    "cluster_drift",
    "version_drift",
    "near_duplicates",
    "contamination",
    "signal_evidence",
    "evidence_curve",
    "evidence_verdicts",
    "difficulty_scores",
    "difficulty_proxy",
    "quality_probe",
    "probe_calibration",
    "quality_scores",
    "control_signals",
    "artifacts",
    "cluster_map",
    "feature_examples",
    "training_feedback",
    "trial_evaluations",
    "trial_summary",
)
OF_A_MANIFEST = ("batch_manifest", "batch_metrics", "deferred_prompts", "trainer_exports")
MEASURES_OF_A_LINE = """
    WITH RECURSIVE line AS (
      SELECT dataset_version, parent FROM versions WHERE dataset_version = ?
      UNION
      SELECT v.dataset_version, v.parent FROM versions v JOIN line ON v.dataset_version = line.parent
    )
    SELECT m.* FROM version_measures m SEMI JOIN line USING (dataset_version)
"""
PROMPT_COLUMNS = ("prompt_id", "position", "text", "topic", "split", "n_tokens", "n_rows")


@table_asset(
    "records",
    "html",
    deps=[
        "batch_metrics",
        "version_drift",
        "evidence_verdicts",
        "artifacts",
        "rejected_rows",
        "difficulty_scores",
        "probe_calibration",
        "quality_scores",
        "control_signals",
        "cluster_map",
        "feature_examples",
        "training_feedback",
        "trial_summary",
    ],
)
def version_report(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per version: its HTML page, with everything that is known of it, readable without a network."""
    version = home.version(context.partition_key)
    warehouse = home.warehouse(context.log.warning)
    of_manifest = {name: warehouse.rows(name, manifest_id=version.current_manifest_id or "") for name in OF_A_MANIFEST}
    inputs = ReportInputs(
        prompts=warehouse.rows("prompts", PROMPT_COLUMNS, dataset_version=version.key),
        generated_with=f"saerl-assets {saerl_assets.__version__}, Python {platform.python_version()}",
        **{name: warehouse.rows(name, dataset_version=version.key) for name in OF_A_VERSION},
        **of_manifest,
        curriculum_steps=warehouse.rows("curriculum_steps", dataset_version=version.key),
        version_measures=warehouse.query(MEASURES_OF_A_LINE, [version.key]),
        trainer_settings=exported_settings(home, of_manifest["trainer_exports"]),
    )
    page = render_report(inputs).encode()
    root = home.open()
    path = root.reports / f"{version.key}.html"
    write_whole(path, page)
    row = pl.DataFrame(
        {
            "manifest_id": version.current_manifest_id or "",
            "path": root.relative(path),
            "n_bytes": len(page),
            "digest": file_digest(path),
        }
    )
    return dg.MaterializeResult(
        value=row,
        metadata={
            "page": dg.MetadataValue.path(path),
            "figure": picture(figure_version_report(inputs.stages), "what became of the rows"),
        },
    )
