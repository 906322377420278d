"""The order that a training was to follow, by what a person names: an export's folder, a version or a manifest.

Belongs here: finding it. Does not belong here: comparing a log with it (trainers.verify).
"""

import json
from pathlib import Path

import polars as pl

from saerl_assets.disk import placed
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.manifests import MIN_DIGITS, manifests_named
from saerl_assets.domain.prompt_texts import PromptTexts
from saerl_assets.resources.home import HomeResource
from saerl_assets.trainers.export import whole_batches
from saerl_assets.trainers.planned import PlannedOrder, planned_by_export


def find_planned_order(home: HomeResource, name: str, arm: str | None = None) -> PlannedOrder:
    """The planned order of an export's folder, of a version's current manifest, or of a manifest by its id's beginning.

    Args:
        home: The home of versions and manifests; not touched for a folder.
        name: Folder, version key or a manifest's id, of which `MIN_DIGITS` digits are enough.
        arm: Arm of the manifest; the spec's planner by default. A folder has one only.

    Raises:
        SaerlError: `unknown_manifest`, `unknown_arm`, `path_invalid`, or what a folder that is no intact export has.
    """
    placed(name, Path.cwd())
    folder = Path(name)
    if folder.is_dir() or "/" in name:
        planned = planned_by_export(folder)
        if arm not in {None, planned.arm}:
            problem = f"This export is of arm {planned.arm!r}, not of {arm!r}."
            raise SaerlError("unknown_arm", problem, where=name, remedy="Leave out --arm.")
        return planned
    key, manifest_id = _find_manifest(home, name)
    version = home.version(key)
    chosen = arm or version.spec.batches.planner
    warehouse = home.warehouse()
    rows = warehouse.rows("batch_manifest", manifest_id=manifest_id)
    arms = rows["arm"].unique().sort().to_list()
    if chosen not in arms:
        remedy = f"Arms of this manifest: {', '.join(arms)}."
        raise SaerlError("unknown_arm", f"There is no arm {chosen!r}.", where=name, remedy=remedy)
    order = whole_batches(rows.filter(pl.col("arm") == chosen), version.spec.batches.batch_size)

    def texts() -> PromptTexts:
        prompts = warehouse.rows("prompts", ["prompt_id", "messages"], dataset_version=key)
        prompts = prompts.filter(pl.col("prompt_id").is_in(order["prompt_id"].unique().implode()))
        return PromptTexts((prompt_id, json.loads(messages)) for prompt_id, messages in prompts.iter_rows())

    return PlannedOrder(manifest_id, chosen, order.select("epoch", "step", "slot", "prompt_id"), texts)


def _find_manifest(home: HomeResource, name: str) -> tuple[str, str]:
    """Version key and id of a manifest."""
    known = home.warehouse().rows("manifests", ["dataset_version", "manifest_id"])
    if name in set(home.catalog().keys()):
        current = home.version(name).current_manifest_id
        if current is None:
            remedy = f"Run it first: saerl run {name}"
            raise SaerlError("no_manifest", f"{name} has no manifest yet.", remedy=remedy)
        return name, current
    found = known.filter(pl.col("manifest_id").is_in(manifests_named(known["manifest_id"], name))).unique()
    if found.height != 1:
        named = f"{MIN_DIGITS} digits or more of an id that saerl manifest KEY lists"
        remedy = f"Give an export's folder, a version's key, or {named}."
        problem = f"{name!r} is no folder, and names {found.height} manifests."
        raise SaerlError("unknown_manifest", problem, where="--manifest", remedy=remedy)
    return str(found["dataset_version"][0]), str(found["manifest_id"][0])
