"""Checks of `batch_manifest`.

Belongs here: the invariants of a manifest, held against the tables that it was planned from. Does not belong here:
planning.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.manifests import verify_manifest
from saerl_assets.resources.home import HomeResource

_EPOCH = ["arm", "epoch"]


@dg.asset_check(
    asset="batch_manifest",
    additional_ins={"prompts": dg.AssetIn("prompts"), "deferred_prompts": dg.AssetIn("deferred_prompts")},
    blocking=True,
)
def manifest_invariants(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    batch_manifest: pl.DataFrame,
    prompts: pl.DataFrame,
    deferred_prompts: pl.DataFrame,
) -> dg.AssetCheckResult:
    """Every training prompt exactly once an epoch or deferred with its reason; whole batches; no evaluation prompt."""
    batches = home.version(context.run.tags["dagster/partition"]).spec.batches
    return invariants_hold(batch_manifest, prompts, deferred_prompts, batch_size=batches.batch_size, tail=batches.tail)


@dg.asset_check(
    asset="batch_manifest", additional_ins={"deferred_prompts": dg.AssetIn("deferred_prompts")}, blocking=True
)
def rows_have_their_digest(
    context: dg.AssetCheckExecutionContext, batch_manifest: pl.DataFrame, deferred_prompts: pl.DataFrame
) -> dg.AssetCheckResult:
    """The manifest's name is the digest of its rows: nobody has edited them."""
    return digest_fits(batch_manifest, deferred_prompts, key=context.run.tags["dagster/partition"])


def digest_fits(manifest: pl.DataFrame, deferred: pl.DataFrame, *, key: str) -> dg.AssetCheckResult:
    """The rows against the digest that names them."""
    try:
        verify_manifest(manifest, deferred, key=key)
    except SaerlError as error:
        return verdict([str(error)], "")
    return verdict([], "The rows are those that the manifest was named after.")


def invariants_hold(
    manifest: pl.DataFrame, prompts: pl.DataFrame, deferred: pl.DataFrame, *, batch_size: int, tail: str
) -> dg.AssetCheckResult:
    """The invariants of one manifest, all arms and epochs."""
    train = set(prompts.filter(pl.col("split") == "train")["prompt_id"])
    problems: list[str] = []
    if manifest.is_empty():
        problems.append("The manifest is empty.")
    if manifest["manifest_id"].n_unique() > 1:
        problems.append("The rows are of several manifests.")
    own = manifest.filter(~pl.col("is_padding"))
    for (arm, epoch), rows in own.group_by(_EPOCH, maintain_order=True):
        left_out = deferred.filter((pl.col("arm") == arm) & (pl.col("epoch") == epoch))["prompt_id"]
        problems += _membership(f"{arm}, epoch {epoch}", rows["prompt_id"], left_out, train)
    problems += _batch_sizes(manifest, batch_size, tail)
    return verdict(
        problems,
        "Every training prompt is in the order once an epoch, or deferred with its reason.",
        {"n_rows": manifest.height, "n_arms": manifest["arm"].n_unique(), "n_deferred": deferred.height},
    )


def _membership(place: str, ordered: pl.Series, left_out: pl.Series, train: set[str]) -> list[str]:
    problems = []
    if ordered.is_duplicated().any():
        problems.append(f"{place}: {int(ordered.is_duplicated().sum())} slots repeat a prompt.")
    inside, outside = set(ordered), set(left_out)
    if inside & outside:
        problems.append(f"{place}: {len(inside & outside)} prompts are both in the order and deferred.")
    if train - inside - outside:
        problems.append(f"{place}: {len(train - inside - outside)} prompts are lost.")
    if (inside | outside) - train:
        problems.append(f"{place}: {len((inside | outside) - train)} prompts are not of the training split.")
    return problems


def _batch_sizes(manifest: pl.DataFrame, batch_size: int, tail: str) -> list[str]:
    sizes = manifest.group_by([*_EPOCH, "step"]).agg(
        n=pl.len(), slots=pl.col("slot").n_unique(), last=pl.col("slot").max()
    )
    odd = sizes.filter(
        (pl.col("n") != batch_size) | (pl.col("slots") != pl.col("n")) | (pl.col("last") + 1 != pl.col("n"))
    )
    if tail == "short":
        last_step = sizes.group_by(_EPOCH).agg(last_step=pl.col("step").max())
        odd = odd.join(last_step, on=_EPOCH).filter(
            (pl.col("step") != pl.col("last_step")) | (pl.col("n") > batch_size) | (pl.col("slots") != pl.col("n"))
        )
    return [f"{odd.height} batches do not have {batch_size} slots."] if odd.height else []
