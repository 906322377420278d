"""The epoch that a version plans next, where its curriculum follows what a training measures.

Belongs here: reading manifests and feedback from the warehouse. Does not belong here: the rule (domain.curriculum).
"""

import polars as pl

from saerl_assets.domain.curriculum import Epoch, epoch_of, first_epoch, next_epoch
from saerl_assets.domain.spec import FeedbackSpec
from saerl_assets.domain.training_feedback import fullest
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Version


def epoch_to_plan(home: HomeResource, version: Version) -> Epoch | None:
    """The epoch that a plan made now is of: the next one where the feedback says enough, else the one there is.

    None where the spec has no `[batches.feedback]`. Planned again without more feedback, it is the same one.
    """
    if version.spec.batches.feedback is None:
        return None
    now, _ = _epoch_now(home, version, version.spec.batches.feedback)
    return epoch_that_is_due(home, version) or now


def epoch_that_is_due(home: HomeResource, version: Version) -> Epoch | None:
    """The epoch after the current manifest's, if its training's feedback says enough."""
    spec, feedback = version.spec.batches, version.spec.batches.feedback
    if feedback is None:
        return None
    now, candidates = _epoch_now(home, version, feedback)
    if not candidates:
        return None
    warehouse = home.warehouse()
    measured = warehouse.rows("training_feedback", dataset_version=version.key)
    measured = fullest(measured.filter(pl.col("manifest_id").is_in(candidates)))
    if measured.is_empty():
        return None
    # One training: of several, the one that has come furthest.
    runs = measured.group_by("manifest_id", "run_name").agg(pl.col("step").n_unique(), pl.col("observed_at").max())
    manifest_id, run_name = runs.sort("step", "observed_at", "run_name", descending=True).row(0)[:2]
    training = measured.filter((pl.col("manifest_id") == manifest_id) & (pl.col("run_name") == run_name))
    n_steps = int(warehouse.rows("manifests", ["n_steps"], manifest_id=manifest_id)["n_steps"][0])
    return next_epoch(now, manifest_id, training, n_steps, spec, feedback)


def curriculum_so_far(home: HomeResource, version: Version, more: pl.DataFrame) -> pl.DataFrame:
    """The rows of curriculum_steps of a version, and those that are about to join them."""
    known = home.warehouse().rows("curriculum_steps", dataset_version=version.key).select(more.columns)
    new = more.join(known.select("manifest_id"), on="manifest_id", how="anti")
    return pl.concat([known, new]).sort("epoch", "manifest_id")


def _epoch_now(home: HomeResource, version: Version, feedback: FeedbackSpec) -> tuple[Epoch, list[str]]:
    """The epoch of the current manifest, and every manifest that was planned for it."""
    steps = home.warehouse().rows("curriculum_steps", dataset_version=version.key)
    current = steps.filter(pl.col("manifest_id") == (version.current_manifest_id or ""))
    if current.is_empty():
        return first_epoch(version.spec.batches, feedback), []
    now = epoch_of(current.row(0, named=True))
    return now, steps.filter(pl.col("epoch") == now.number)["manifest_id"].to_list()
