"""Labels and training logs that arrive later, and the epochs that follow from them.

Belongs here: the jobs `take_feedback` and `plan_order`, the sensors `late_labels` and `next_epoch`. Does not belong
here: what labels refresh (refresh), what a log says (domain.training_feedback), the rule (domain.curriculum).

As with arrivals, sensors look at files and at Dagster's own records, and never open the warehouse.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from saerl_assets.automation.arrivals import LOOK_SECONDS, next_attempt
from saerl_assets.domain.arrivals import cursor_of, look_again, remembered_in
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import digest
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.placement import Placement
from saerl_assets.storage.inbox import Inbox
from saerl_assets.storage.notes import read_notes

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

FEEDBACK_TABLES = ("rejected_feedback", "training_feedback", "feedback_files")
ORDER_TABLES = (
    "batch_manifest",
    "deferred_prompts",
    "curriculum_steps",
    "manifests",
    "batch_metrics",
    "trainer_exports",
    "artifacts",
    "version_report",
)
DUE_METADATA = "next_epoch_is_due"
LABELS_TAG = "saerl/labels"
"""Of a run that takes feedback up: which files."""


def take_feedback_job(placement: Placement) -> "UnresolvedAssetJobDefinition":
    """The job that takes up the files that a version was given."""
    return dg.define_asset_job(
        placement.name("take_feedback"),
        selection=dg.AssetSelection.assets(*map(placement.key, FEEDBACK_TABLES)),
        description="Takes up labels and training logs that a version was given since, and nothing else.",
        executor_def=dg.in_process_executor,
    )


def plan_order_job(placement: Placement) -> "UnresolvedAssetJobDefinition":
    """The job that plans a new manifest and what follows from it."""
    return dg.define_asset_job(
        placement.name("plan_order"),
        selection=dg.AssetSelection.assets(*map(placement.key, ORDER_TABLES)),
        description="Plans a new manifest from the scores as they are, and writes it for the trainers. Those before it "
        "stay as they are.",
        executor_def=dg.in_process_executor,
    )


def late_labels_sensor(placement: Placement, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that looks for labels and training logs in the inbox."""
    home_key = placement.resource("home")

    @dg.sensor(
        name=placement.name("late_labels"),
        job_name=placement.name("take_feedback"),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=status,
        required_resource_keys={home_key},
        description="Takes labels and training logs up that were put into <home>/inbox/labels/<version>, once for each "
        "content. New labels then refresh scores and evidence.",
    )
    def late_labels(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        inbox = Inbox(getattr(context.resources, home_key).open())
        partitions = set(context.instance.get_dynamic_partitions(str(DATASET_VERSIONS.name)))
        remembered, whole = look_again(remembered_in(context.cursor), inbox.waiting_labels())
        for name in whole:
            _give(inbox, name, partitions)
            del remembered[name]
        cursor = cursor_of(remembered)
        # What was given but not taken up yet is what the newest run of the version has not seen, whoever gave it.
        given = {key: [file.path.name for file in inbox.labels(key)] for key in sorted(partitions)}
        requests = [
            dg.RunRequest(run_key=f"labels:{key}:{tag}:{attempt}", partition_key=key, tags={LABELS_TAG: tag})
            for key, names in given.items()
            if names
            and (tag := digest([key, names])[:32])
            and (attempt := next_attempt(context.instance, placement.name("take_feedback"), {LABELS_TAG: tag}))
            is not None
        ]
        if not requests:
            words = f"{len(remembered)} files have just arrived." if remembered else "No labels have arrived."
            return dg.SensorResult(skip_reason=words, cursor=cursor)
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return late_labels


def next_epoch_sensor(placement: Placement, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that has the next epoch planned."""
    home_key = placement.resource("home")

    @dg.sensor(
        name=placement.name("next_epoch"),
        job_name=placement.name("plan_order"),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=status,
        required_resource_keys={home_key},
        description="Plans the next epoch as a manifest of its own once a training's feedback asks for it, where the "
        "spec has [batches.feedback]. The manifest in use stays as it is.",
    )
    def next_epoch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        notes = read_notes(getattr(context.resources, home_key).open())
        partitions = set(context.instance.get_dynamic_partitions(str(DATASET_VERSIONS.name)))
        following = [key for key, note in notes.items() if note.follows_feedback and key in partitions]
        requests = [
            dg.RunRequest(run_key=f"epoch:{key}:{event}", partition_key=key)
            for key in following
            if (event := _due_since(context.instance, placement, key)) is not None
        ]
        if not requests:
            return dg.SkipReason(f"{len(following)} versions follow their training, and none is due.")
        return dg.SensorResult(run_requests=requests)

    return next_epoch


def _give(inbox: Inbox, name: str, partitions: set[str]) -> None:
    """Gives a file of `inbox/labels/` to its version, or sets it aside with the reason."""
    key, *run, _ = name.split("/")
    place = inbox.folder / "labels" / name
    try:
        _check(place, name, key, partitions)
        inbox.add_labels(key, place, run_name=run[0] if run else "", move=True)
    except SaerlError as error:
        if error.code in {"disk_full", "not_writable"}:
            raise
        inbox.reject([f"labels/{name}"], error)


def _check(place: Path, name: str, key: str, partitions: set[str]) -> None:
    if key not in partitions:
        known = ", ".join(sorted(partitions)) or "none yet"
        remedy = f"Name the folder after a registered version: {known}."
        raise SaerlError("unknown_version", f"There is no version {key!r}.", where=name, remedy=remedy)
    if place.is_symlink():
        remedy = "Copy the file itself into the inbox."
        raise SaerlError("source_is_link", "This is a link.", where=name, remedy=remedy)


def _due_since(instance: dg.DagsterInstance, placement: Placement, key: str) -> int | None:
    """The event after which the next epoch of a version is due, unless a plan was made since or is being made."""
    told = _newest(instance, placement.key("feedback_files"), key)
    made = told.asset_materialization if told else None
    said = made.metadata.get(DUE_METADATA) if made else None
    if told is None or said is None or said.value is not True:
        return None
    planned = _newest(instance, placement.key("manifests"), key)
    if planned is None or planned.storage_id > told.storage_id:
        return None
    return told.storage_id


def _newest(instance: dg.DagsterInstance, asset: dg.AssetKey, key: str) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[key])
    records: Sequence[dg.EventLogRecord] = instance.fetch_materializations(wanted, limit=1).records
    return records[0] if records else None
