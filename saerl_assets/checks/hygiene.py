"""Checks of `near_duplicates` and `contamination`.

Belongs here: that groups are whole, that they are copies and no template, that little of the training split is lost to
evaluation rows. Does not belong here: leaving prompts out.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict

LARGEST_FRACTION = 0.05
"""A group with more of the prompts is hardly made of copies."""
LEAST_LARGE = 5
"""And has more than so many prompts."""
MAX_CONTAMINATED_FRACTION = 0.05
LEAVING = {"contaminated": "contamination", "near_duplicate": "near_duplicates"}


@dg.asset_check(asset="near_duplicates", additional_ins={"prompts": dg.AssetIn("prompts")}, blocking=True)
def every_group_has_one_representative(near_duplicates: pl.DataFrame, prompts: pl.DataFrame) -> dg.AssetCheckResult:
    """Groups are whole: known prompts, the size they say, one representative that is trained on."""
    problems = []
    if unknown := near_duplicates.join(prompts, on="prompt_id", how="anti").height:
        problems.append(f"{unknown} prompts of groups are not of the version.")
    if near_duplicates.join(near_duplicates, left_on="nearest", right_on="prompt_id", how="anti").height:
        problems.append("Some prompts are nearest to one that is in no group.")
    groups = near_duplicates.group_by("group_id").agg(
        size=pl.len(),
        told=pl.col("n_prompts").first(),
        names=pl.col("representative").n_unique(),
        standing=(pl.col("role") == "representative").sum(),
        trained=(pl.col("role") != "evaluation").sum(),
    )
    wrong = groups.filter(
        (pl.col("size") != pl.col("told"))
        | (pl.col("size") < 2)
        | (pl.col("names") != 1)
        | (pl.col("standing") != (pl.col("trained") > 0).cast(pl.UInt32))
    )
    if wrong.height:
        problems.append(f"{wrong.height} groups are not whole or have not one representative.")
    return verdict(
        problems,
        "Every group is whole and one of its training prompts stands for it.",
        {"n_groups": groups.height, "n_prompts": near_duplicates.height},
    )


@dg.asset_check(asset="near_duplicates", additional_ins={"prompts": dg.AssetIn("prompts")})
def groups_are_no_template(near_duplicates: pl.DataFrame, prompts: pl.DataFrame) -> dg.AssetCheckResult:
    """No group is so large that it is a template rather than copies of one prompt."""
    largest = max(near_duplicates["n_prompts"].to_list(), default=0)
    too_large = (
        f"One group of near-duplicates holds {largest:,} of {prompts.height:,} prompts: look at it before folding, and "
        "raise hygiene.min_jaccard or hygiene.min_similarity if they are different problems."
    )
    return verdict(
        [too_large] if largest > max(LEAST_LARGE, LARGEST_FRACTION * prompts.height) else [],
        f"The largest group holds {largest:,} prompts.",
        {"largest_group": largest},
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(asset="contamination", additional_ins={"prompts": dg.AssetIn("prompts")})
def little_is_contaminated(contamination: pl.DataFrame, prompts: pl.DataFrame) -> dg.AssetCheckResult:
    """Few training prompts repeat evaluation rows; many are a sign of one source for both, or of a template."""
    n_train = int((prompts["split"] == "train").sum())
    n_hit = contamination["prompt_id"].n_unique()
    fraction = n_hit / max(n_train, 1)
    many = (
        f"{n_hit:,} of {n_train:,} training prompts ({fraction:.0%}) repeat evaluation rows: either both come from one "
        "source, or what they share is a template; the table contamination has the evidence."
    )
    return verdict(
        [many] if fraction > MAX_CONTAMINATED_FRACTION else [],
        f"{n_hit:,} of {n_train:,} training prompts repeat evaluation rows.",
        {"n_contaminated": n_hit, "contaminated_fraction": fraction},
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(
    asset="deferred_prompts",
    additional_ins={"contamination": dg.AssetIn("contamination"), "near_duplicates": dg.AssetIn("near_duplicates")},
    blocking=True,
)
def what_hygiene_defers_has_its_evidence(
    deferred_prompts: pl.DataFrame, contamination: pl.DataFrame, near_duplicates: pl.DataFrame
) -> dg.AssetCheckResult:
    """Prompts that are deferred as contaminated or as near-duplicates are in the table that says why."""
    known = {
        "contaminated": set(contamination["prompt_id"]),
        "near_duplicate": set(near_duplicates.filter(pl.col("role") == "copy")["prompt_id"]),
    }
    deferred = {code: set(deferred_prompts.filter(pl.col("reason_code") == code)["prompt_id"]) for code in known}
    problems = [
        f"{len(deferred[code] - known[code])} prompts are deferred as {code} without a row in {LEAVING[code]}."
        for code in known
        if deferred[code] - known[code]
    ]
    return verdict(
        problems,
        "What hygiene defers has its evidence.",
        {f"n_{code}": len(prompts) for code, prompts in deferred.items()},
    )
