"""Checks of `feedback_files`.

Belongs here: whether what arrived later speaks of this version. Does not belong here: single rows, which are kept with
their reasons in `rejected_feedback`.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict

MAX_UNMATCHED_FRACTION = 0.05


@dg.asset_check(asset="feedback_files")
def rows_match_prompts(feedback_files: pl.DataFrame) -> dg.AssetCheckResult:
    """Labels and training logs that arrived later speak of prompts of this version, but for 5% of a file's rows."""
    n_rows, n_unmatched = (int(feedback_files[name].sum()) for name in ("n_rows", "n_unmatched"))
    strange = feedback_files.filter(pl.col("n_unmatched") > MAX_UNMATCHED_FRACTION * pl.col("n_rows"))
    problems = [
        f"{row['n_unmatched']:,} of {row['n_rows']:,} rows of {row['file']} match no prompt: is it another version's? "
        "The table rejected_feedback has them."
        for row in strange.sort("file").iter_rows(named=True)
    ]
    fine = "Nearly every row matches a prompt." if n_rows else "Nothing has arrived."
    figures = {"rows": n_rows, "rows_unmatched": n_unmatched}
    return verdict(problems, fine, figures, severity=dg.AssetCheckSeverity.WARN)
