"""New data, by itself: what arrives in the inbox or changes at its source becomes a version, and is built.

Belongs here: the job `take_in` and the sensors `inbox`, `watched_sources` and `new_versions`. Does not belong here:
which version an arrival becomes (resources.arrivals).

Sensors look at files and at Dagster's own records, and never open the warehouse. Registering needs it, so that is a run
of the job `take_in`; what it registered it leaves as a file, from which `new_versions` starts the run that builds it. A
run key names what a run is for, so that a tick which is repeated after a crash starts none twice.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from saerl_assets.automation.jobs import BUILD_VERSION
from saerl_assets.domain.arrivals import MAX_ATTEMPTS, Watched, cursor_of, look_again, newest_keys, remembered_in
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import digest
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.placement import Placement, told_plainly
from saerl_assets.resources.arrivals import Arrivals, take_in
from saerl_assets.storage.hub_datasets import HubName
from saerl_assets.storage.inbox import Inbox
from saerl_assets.storage.notes import Note, read_notes
from saerl_assets.storage.sources import is_unfinished, resolve_source

TAKE_IN = "take_in"
LOOK_SECONDS = 30
"""A file is whole if it did not change for so long."""
HUB_SECONDS = 900
"""How often a hub is asked for the commit of a revision."""
WATCH_TAG = "saerl/watched"

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def take_in_job(placement: Placement) -> dg.JobDefinition:
    """The job that registers what has arrived."""
    home_key = placement.resource("home")

    @dg.op(
        name=placement.name("register_arrivals"),
        required_resource_keys={home_key},
        config_schema={
            "files": dg.Field([str], default_value=[], description="Files of the inbox, in order of arrival."),
            "watched": dg.Field([str], default_value=[], description="Versions whose source may have changed."),
        },
    )
    def register_arrivals(context: dg.OpExecutionContext) -> None:
        """Registers a version for each file of the inbox and for each watched source that has changed."""

        def add_partition(key: str) -> None:
            context.instance.add_dynamic_partitions(str(DATASET_VERSIONS.name), [key])

        arrivals = Arrivals(getattr(context.resources, home_key), add_partition, context.log.warning)
        with told_plainly():
            for outcome in take_in(arrivals, context.op_config["files"], context.op_config["watched"]):
                context.log.info(f"{outcome.name}: {outcome.words}")

    @dg.job(
        name=placement.name(TAKE_IN),
        description="Registers what has arrived in the inbox, or changed at a watched source, as versions.",
        executor_def=dg.in_process_executor,
    )
    def take_in_() -> None:
        register_arrivals()

    return take_in_


def take_in_config(placement: Placement, *, files: Sequence[str] = (), watched: Sequence[str] = ()) -> dict[str, Any]:
    """What a run of the job is to take in."""
    config = {"files": list(files), "watched": list(watched)}
    return {"ops": {placement.name("register_arrivals"): {"config": config}}}


def inbox_sensor(placement: Placement, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that looks into the inbox."""
    home_key = placement.resource("home")

    @dg.sensor(
        name=placement.name("inbox"),
        job_name=placement.name(TAKE_IN),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=status,
        required_resource_keys={home_key},
        description="Takes data files in that have arrived in <home>/inbox, in their order, once they are whole. "
        "A spec beside a file is named like it: put prompts.toml there, then prompts.jsonl.",
    )
    def inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        found = Inbox(getattr(context.resources, home_key).open())
        remembered, whole = look_again(remembered_in(context.cursor), found.waiting())
        running = unfinished_run(context.instance, placement.name(TAKE_IN))
        if running:
            return _skipped(f"Run {running} is taking arrivals in.", remembered)
        given_up = [name for name in whole if remembered[name].n_attempts >= MAX_ATTEMPTS]
        for name in given_up:
            found.reject([name], _given_up(name))
            del remembered[name]
        files = [name for name in whole if name not in given_up]
        if not files:
            return _skipped(_why_nothing(len(remembered), given_up), remembered)
        asked = {name: remembered[name].as_list() for name in files}
        for name in files:
            known = remembered[name]
            remembered[name] = Watched(known.n_bytes, known.modified_ns, known.number, known.n_attempts + 1)
        request = dg.RunRequest(run_key=f"inbox:{digest(asked)}", run_config=take_in_config(placement, files=files))
        return dg.SensorResult(run_requests=[request], cursor=cursor_of(remembered))

    return inbox


def watched_sources_sensor(placement: Placement, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that looks at the sources of versions with `[data] watch = true`."""
    home_key = placement.resource("home")

    @dg.sensor(
        name=placement.name("watched_sources"),
        job_name=placement.name(TAKE_IN),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=status,
        required_resource_keys={home_key},
        description="Opens the next version of a source that has changed, where its spec says [data] watch = true: a "
        "folder that grows, a file that is replaced, a revision of a hub that moves.",
    )
    def watched_sources(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        notes = read_notes(getattr(context.resources, home_key).open())
        newest = [notes[key] for key in newest_keys(notes).values() if notes[key].watch]
        before = json.loads(context.cursor or "{}")
        remembered, requests, words = {}, [], []
        for note in newest:
            try:
                looked = _look_at(note, before.get(note.key, {}))
            except (SaerlError, OSError) as error:
                words.append(f"{note.key}: {error}")
                remembered[note.key] = before.get(note.key, {})
                continue
            remembered[note.key] = looked
            request = _watch_request(context.instance, placement, note, looked)
            requests += [request] if request else []
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=json.dumps(remembered))
        said = "; ".join(words) or f"{len(newest)} sources are watched, and none has changed."
        return dg.SensorResult(skip_reason=said, cursor=json.dumps(remembered))

    return watched_sources


def new_versions_sensor(placement: Placement, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that has versions built which were registered by themselves."""
    home_key = placement.resource("home")

    @dg.sensor(
        name=placement.name("new_versions"),
        job_name=placement.name(BUILD_VERSION),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=status,
        required_resource_keys={home_key},
        description="Builds the versions that the inbox and watched sources have led to, in their order, each once.",
    )
    def new_versions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        arrivals = Inbox(getattr(context.resources, home_key).open()).arrivals()
        partitions = set(context.instance.get_dynamic_partitions(str(DATASET_VERSIONS.name)))
        done = int(context.cursor or 0)
        due = [arrival for arrival in arrivals if arrival.number > done and arrival.key in partitions]
        requests = [
            dg.RunRequest(
                run_key=f"build:{arrival.key}:{arrival.spec_digest[:16]}:{arrival.number}", partition_key=arrival.key
            )
            for arrival in due
        ]
        cursor = str(max([done, *(arrival.number for arrival in due)]))
        if not requests:
            return dg.SensorResult(skip_reason="No version has arrived.", cursor=cursor)
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return new_versions


def unfinished_run(instance: dg.DagsterInstance, job: str) -> str | None:
    """A run of a job that is waiting or going on."""
    found = instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED), limit=1)
    return found[0].run_id[:8] if found else None


def next_attempt(instance: dg.DagsterInstance, job: str, tags: dict[str, str]) -> int | None:
    """How many runs for a purpose, which its tags name, have failed; None where one has not, or too many have."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, tags=tags))
    failed = [run for run in runs if run.status in {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}]
    return len(failed) if len(failed) == len(runs) and len(failed) < MAX_ATTEMPTS else None


def _watch_request(
    instance: dg.DagsterInstance, placement: Placement, note: Note, looked: dict[str, Any]
) -> dg.RunRequest | None:
    """A run for a source that has changed and stopped changing; again, a few times, where one has failed."""
    signature = looked["signature"]
    if not looked["still"] or signature == note.digest:
        return None
    tag = digest([note.key, signature])[:32]
    attempt = next_attempt(instance, placement.name(TAKE_IN), {WATCH_TAG: tag})
    if attempt is None:
        return None
    return dg.RunRequest(
        run_key=f"watched:{tag}:{attempt}",
        run_config=take_in_config(placement, watched=[note.key]),
        tags={WATCH_TAG: tag},
    )


def _look_at(note: Note, before: dict[str, Any]) -> dict[str, Any]:
    """How a source is now: a sign that is another one as soon as it has changed, and whether it was the same before.

    Of a hub's revision the sign is its commit, as the note has it; of files their names, sizes and times of change.

    Raises:
        SaerlError: What is wrong with the source.
    """
    scheme, _, name = note.source.partition(":")
    place = (Path(note.folder) / Path(name.partition("#")[0]).expanduser()).resolve()
    if scheme == "hf" and not place.is_dir():
        return _look_at_hub(note, name, before)
    if place.is_dir():
        files = [path for path in sorted(place.rglob("*")) if path.is_file() and not is_unfinished(path.name)]
    else:
        files = [place]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    signature = digest(stats)
    return {"signature": signature, "still": before.get("signature") == signature}


def _look_at_hub(note: Note, name: str, before: dict[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).timestamp()
    if HubName.parse(name).revision == note.digest:
        return {"signature": note.digest, "still": True, "asked_at": now}
    if "asked_at" in before and abs(now - before["asked_at"]) < HUB_SECONDS:
        return before
    found = resolve_source(note.source, Path(note.folder))
    return {"signature": found.digest, "still": True, "asked_at": now}


def _given_up(name: str) -> SaerlError:
    problem = f"{MAX_ATTEMPTS} runs tried to take it in, and each failed."
    remedy = f"Look at the failed runs of the job {TAKE_IN}, then put the file into the inbox again."
    return SaerlError("attempts_failed", problem, where=name, remedy=remedy)


def _why_nothing(n_waiting: int, given_up: list[str]) -> str:
    if given_up:
        return f"Set aside, since every run failed: {', '.join(given_up)}."
    return f"{n_waiting} files have just arrived or are still changing." if n_waiting else "The inbox is empty."


def _skipped(words: str, remembered: dict[str, Watched]) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=words, cursor=cursor_of(remembered))
