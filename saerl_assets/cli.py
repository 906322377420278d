"""The command line, `saerl`: thin, every verb calls what the UI calls.

Belongs here: options, help, printing. Does not belong here: anything that a Dagster user would miss without it.
Heavy imports are inside the verbs, so that `saerl --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import polars as pl

    from saerl_assets.domain.errors import SaerlError
    from saerl_assets.resources.compute import ComputeResource
    from saerl_assets.resources.home import HomeResource

EXIT_USER_ERROR = 1
EXIT_RUN_FAILED = 3
_REFUSED_BY_THE_DISK = ("readonly database", "unable to open database file", "Read-only file system")


def _keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Keys of versions for the shell, from the names of the notes: at once, and without opening the warehouse."""
    from saerl_assets.storage.home import find_home

    above = [each for each in (ctx, ctx.parent) if each is not None]
    named = next((each.params["home"] for each in above if each.params.get("home")), None)
    found = (path.stem for path in find_home(named).notes.glob("*.json"))
    return sorted(key for key in found if key.startswith(incomplete))


class _Verbs(click.Group):
    """Verbs in the order in which one needs them, and errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        from saerl_assets.domain.errors import SaerlError

        try:
            return super().invoke(ctx)
        except Exception as failure:
            error = failure if isinstance(failure, SaerlError) else _of_the_disk(failure)
            if error is None:
                raise
            where = f"{error.where}: " if error.where else ""
            click.echo(f"error: {where}{error.problem}\n  what to do: {error.remedy} [{error.code}]", err=True)
            ctx.exit(EXIT_USER_ERROR)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--home", metavar="DIR", help="The project's home. Default: SAERL_HOME, else the nearest .saerl upwards.")
@click.version_option(package_name="saerl-assets", prog_name="saerl")
def main(home: str | None) -> None:
    """Turn prompts into ordered training batches for RL on language models.

    A language model and a sparse autoencoder read your prompts; what they see becomes diversity, difficulty and
    quality, and these become a batch manifest that your trainer follows.

    \b
    Five minutes:
      saerl register --from prompts.jsonl --key mine-v1    look at the columns, write mine-v1.toml, register it
      saerl plan mine-v1                                   what a run would read and compute
      saerl run mine-v1                                    do it; run it again after any interruption
      saerl export mine-v1 --to trl                        the files for your trainer
    \b
    In somebody else's Dagster project: export SAERL_DEFINITIONS=its.definitions and its DAGSTER_HOME; every verb then
    works on the graph as it stands there.
    \b
    Exit codes: 0 done, 1 something that you can put right (the message says how), 2 wrong usage, 3 a stage failed.
    """
    if home:
        os.environ["SAERL_HOME"] = str(Path(home).resolve())


@main.command()
def init() -> None:
    """Make the home: warehouse, artefacts and Dagster's own files go there.

    Harmless where it exists. Every other verb makes it too; this one shows where it is.
    """
    home = _home().open()
    click.echo(
        f"home       {home.root}\nwarehouse  {home.warehouse_place}\ndagster    export DAGSTER_HOME={home.dagster}"
    )


@main.command()
@click.argument("spec", required=False, type=click.Path(dir_okay=False))
@click.option(
    "--from", "source", metavar="FILE", help="Look at this data file, write a commented spec and register it."
)
@click.option("--key", metavar="KEY", help="With --from: key of the version, such as mine-v1.")
@click.option("--draft-only", is_flag=True, help="With --from: write and show the spec, but do not register it yet.")
def register(spec: str | None, source: str | None, key: str | None, *, draft_only: bool) -> None:
    """Register a dataset version from a spec file, or draft the spec from a data file.

    \b
      saerl register examples/demo/demo.toml
      saerl register --from prompts.jsonl --key mine-v1
    """
    from saerl_assets.automation.runs import add_partition, open_instance
    from saerl_assets.domain.errors import SaerlError
    from saerl_assets.domain.spec import parse_spec

    if (spec is None) == (source is None):
        raise click.UsageError("Give either a SPEC file or --from FILE.")
    if source is not None:
        path = _draft(source, key)
        if draft_only:
            click.echo(f"\nLook it over, then: saerl register {path}")
            return
    else:
        path = Path(str(spec))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Give the path of a TOML file; saerl register --from DATA writes one."
        raise SaerlError("spec_unreadable", f"{error}.", where=str(path), remedy=remedy) from error
    home = _home()
    version = home.catalog().register(parse_spec(text, str(path)), path.resolve().parent)
    with open_instance(home.open().dagster) as instance:
        add_partition(instance, version.key)
    click.echo(f"registered {version.key}  (spec {version.digest[:12]})")
    for name, found in version.sources.items():
        click.echo(f"  {name}: {found.location}, {found.n_bytes:,} bytes, digest {found.digest[:12]}")
    click.echo(f"next: saerl plan {version.key}, then saerl run {version.key}")


@main.command()
@click.argument("key", shell_complete=_keys)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def plan(key: str, *, as_json: bool) -> None:
    """Say what a run would read and compute, with time, memory and disk, before it does."""
    from saerl_assets.automation.estimate import estimate

    found = estimate(_home(), _compute(), key)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
        return
    _table(["", "what", "how much"], found.lines())
    click.echo(f"next: saerl run {key}")


@main.command()
@click.argument("key", shell_complete=_keys)
@click.option("--all", "everything", is_flag=True, help="Also the stages that are up to date.")
@click.option("--only", metavar="ASSET,...", help="Only these assets.")
def run(key: str, *, everything: bool, only: str | None) -> None:
    """Materialise what is missing of a version. Interrupted? Run it again: it resumes.

    The same assets as in the UI, in this process, without a daemon. What is up to date is left alone.
    """
    from saerl_assets.automation.summary import run_version

    outcome = run_version(_home(), key, only=only.split(",") if only else None, everything=everything)
    _table(["stage", "rows", "seconds", ""], outcome.stage_lines())
    for line in outcome.closing_lines():
        click.echo(line)
    if outcome.failure:
        click.echo(f"error: {outcome.failure}", err=True)
        sys.exit(EXIT_RUN_FAILED)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def versions(*, as_json: bool) -> None:
    """List the registered versions."""
    home = _home()
    if not home.catalog().keys():
        click.echo("No versions yet. Start with: saerl register SPEC.toml")
        return
    _frame(
        home.warehouse().query("SELECT * FROM version_overview ORDER BY registered_at"),
        "json" if as_json else "table",
    )


@main.command()
@click.argument("key", shell_complete=_keys)
@click.option("--json", "as_json", is_flag=True, help="For scripts: also the spec, sources, manifests and files.")
@click.option("--spec", "as_spec", is_flag=True, help="The spec as TOML, with every default; register it elsewhere.")
def show(key: str, *, as_json: bool, as_spec: bool) -> None:
    """Show what exists of a version: its stages, row counts and health."""
    if as_json and as_spec:
        raise click.UsageError("Give either --json or --spec.")
    if as_spec:
        from saerl_assets.domain.spec_text import spec_toml

        click.echo(spec_toml(_home().version(key).spec), nl=False)
        return
    from saerl_assets.automation.summary import describe_version

    found = describe_version(_home(), key)
    if as_json:
        click.echo(json.dumps(found.as_dict(), default=str))
        return
    for line in found.heading_lines():
        click.echo(line)
    _table(["stage", "rows", "made", "state"], found.stage_lines())
    _table(["check", "result", "says"], found.check_lines())


@main.command()
@click.argument("before", metavar="KEY1", shell_complete=_keys)
@click.argument("after", metavar="KEY2", shell_complete=_keys)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def diff(before: str, after: str, *, as_json: bool) -> None:
    """Say what sets version KEY2 apart from KEY1: spec, data, features, clusters, difficulty, quality and order.

    Any two versions can be held against each other; what one of them does not have yet is left out.

    \b
      saerl diff mine-v1 mine-v2
      saerl diff mine-v1 mine-v2 --json | jq .order
    """
    from saerl_assets.automation.comparison import compare_versions

    found = compare_versions(_home(), before, after)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
        return
    _table(["", "what", before, after], found.lines())


@main.command()
@click.argument("key", shell_complete=_keys)
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(key: str, *, yes: bool) -> None:
    """Remove a version: its rows, its exports, its report, and shared rows that no other version uses."""
    from saerl_assets.automation.runs import open_instance, remove_partition
    from saerl_assets.automation.summary import remove_files

    home = _home()
    home.catalog().check(key)
    if not yes:
        click.confirm(f"Remove everything of {key}?", abort=True)
    manifests = home.warehouse().rows("manifests", dataset_version=key)["manifest_id"].to_list()
    removed = home.catalog().delete(key)
    remove_files(home.open(), key, manifests)
    with open_instance(home.open().dagster) as instance:
        remove_partition(instance, key)
    click.echo(f"removed {key}: {sum(removed.values()):,} rows")


@main.command()
@click.argument("key", shell_complete=_keys)
@click.option("--use", metavar="ID", help="Make this manifest the current one; six digits of its id are enough.")
@click.option("--rollback", is_flag=True, help="Make the one before the current one current again.")
def manifest(key: str, use: str | None, *, rollback: bool) -> None:
    """List a version's manifests, make one current, or roll back.

    Manifests never change. Exports follow the current one: run `saerl run KEY --only trainer_exports,version_report` or
    `saerl export` afterwards.
    """
    from saerl_assets.automation.summary import previous_manifest

    catalog = _home().catalog()
    catalog.get(key)
    if use is not None and rollback:
        raise click.UsageError("Give either --use or --rollback.")
    if use is not None or rollback:
        catalog.set_current_manifest(key, previous_manifest(catalog, key) if use is None else use)
    listed = catalog.warehouse.query(
        "SELECT manifest_id = v.current_manifest_id AS current, manifest_id, planner, n_arms, n_steps, n_prompts, "
        "created_at FROM manifests JOIN versions v USING (dataset_version) WHERE dataset_version = ? "
        "ORDER BY created_at",
        [key],
    )
    if listed.is_empty():
        click.echo(f"{key} has no manifest yet: saerl run {key}")
        return
    _frame(listed, "table")


@main.command()
@click.argument("statement")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
)
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False), help="Write here instead of printing.")
def sql(statement: str, style: str, out: str | None) -> None:
    """Ask the warehouse something, read-only.

    \b
      saerl sql "SHOW TABLES"
      saerl sql "SELECT * FROM prompt_signals WHERE dataset_version = 'demo-v1' ORDER BY difficulty DESC LIMIT 5"
      saerl sql "FROM current_batches" --format parquet --out batches.parquet
    """
    found = _home().warehouse().query(statement)
    _frame(found, style, Path(out) if out else None)


@main.command()
@click.argument("key", shell_complete=_keys)
@click.option(
    "--to",
    "trainer",
    required=True,
    metavar="TRAINER",
    help="trl, trl_dpo, verl, openrlhf, nemo_rl, ms_swift, jsonl or parquet.",
)
@click.option(
    "--arm",
    metavar="ARM",
    help="The arm to write. Default: the spec's planner. Controls: shuffle, easy_to_hard, ...",
)
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False), help="Write here instead of below the home.")
def export(key: str, trainer: str, arm: str | None, out: str | None) -> None:
    """Write the current manifest for a trainer: data, settings that keep the order, and a README of its traps."""
    from saerl_assets.resources.exports import export_arm
    from saerl_assets.resources.manifests import current_manifest

    home = _home()
    version = home.version(key)
    written = export_arm(
        home,
        version,
        current_manifest(home, version),
        home.warehouse().rows("prompts", dataset_version=key),
        home.warehouse().rows("preference_pairs", dataset_version=key),
        trainer,
        arm or version.spec.batches.planner,
        Path(out).resolve() if out else None,
    )
    folder = home.open().root / str(written["path"])
    click.echo(
        f"{written['n_rows']:,} rows in {written['n_steps']:,} batches: {folder}\nnext: read {folder / 'README.md'}"
    )


@main.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--trainer", metavar="TRAINER", help="Whose it is, if that is not clear: trl, trl_dpo, verl, ...")
@click.option("--manifest", metavar="FOLDER", help="The export that you train on: its sizes are checked too.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def lint(config: Path, trainer: str | None, manifest: str | None, *, as_json: bool) -> None:
    """Name what in a trainer's own configuration would break the order.

    CONFIG is a YAML or JSON file, a script or text with a command line or overrides, or a Python program with a
    GRPOConfig or DPOConfig; it is read and never run. Exit code 0: nothing breaks the order.

    \b
      saerl lint run_verl.sh
      saerl lint train.py --manifest path/to/export
    """
    from saerl_assets.trainers.export import check_export
    from saerl_assets.trainers.lint.engine import lint_config

    folder = Path(manifest) if manifest else None
    report = lint_config(config, trainer, check_export(folder) if folder else None, folder)
    click.echo(report.as_json() if as_json else "\n".join(report.lines()))
    if not report.is_clean:
        sys.exit(EXIT_USER_ERROR)


@main.command()
@click.argument("run_log", type=click.Path(path_type=Path))
@click.option("--manifest", required=True, metavar="M", help="An export's folder, a version's key or a manifest's id.")
@click.option("--arm", metavar="ARM", help="The arm that was trained on. Default: the spec's planner.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def verify(run_log: Path, manifest: str, arm: str | None, *, as_json: bool) -> None:
    """Say whether a training followed a manifest, by its log.

    RUN_LOG is saerl_log.jsonl, a file of JSON lines with prompt_id or prompt (and step, if it has one), TRL's folder of
    completions, or verl's trainer.rollout_data_dir. Exit code 0: it did, as far as it went.

    \b
      saerl verify out/saerl_log.jsonl --manifest path/to/export
      saerl verify rollouts/ --manifest mine-v1
    """
    from saerl_assets.resources.planned_orders import find_planned_order
    from saerl_assets.trainers.planned import verify_run

    verdict, log = verify_run(run_log, find_planned_order(_home(), manifest, arm))
    if as_json:
        click.echo(json.dumps(verdict.as_dict() | {"log": log.kind, "n_lines": log.n_lines}))
    else:
        click.echo("\n".join(verdict.lines()))
    if not verdict.followed:
        sys.exit(EXIT_USER_ERROR)


@main.command()
@click.argument("key", shell_complete=_keys)
@click.option("--minutes", type=click.FloatRange(min=0), metavar="M", help="Begin no training that would end later.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def trial(key: str, *, minutes: float | None, as_json: bool) -> None:
    """Train a policy in the order of several arms, to see whether the order saves steps.

    The spec's section [trial] says which policy, which arms, how many steps and seeds. The same policy is trained
    from the same weights with TRL's GRPOTrainer in each arm's order, and answers held-out prompts every few steps. A
    training that has ended is kept; interrupted, or stopped by --minutes, the trial goes on at the next call. Several
    may be called at once, also on several machines that share the home: each takes trainings that no other has. What
    came out is in the tables trial_evaluations and trial_summary, in the UI and in the report.

    \b
      saerl trial mine-v1                 all of it
      saerl trial mine-v1 --minutes 60    an hour of it
      saerl trial mine-v1 --minutes 0     what is there so far
    """
    from saerl_assets.automation.summary import record_trial
    from saerl_assets.domain.trial import by_steps
    from saerl_assets.resources.progress import progress_lines
    from saerl_assets.resources.trials import open_trial
    from saerl_assets.trial.runs import run_trial

    home = _home()
    asked = open_trial(home, _compute(), key)
    say = progress_lines(lambda line: click.echo(line, err=True), "trial")
    evaluations = run_trial(asked, say, minutes=minutes)
    record_trial(home, key)
    summary = by_steps(home.warehouse().rows("trial_summary", dataset_version=key))
    n_done = evaluations.select("arm", "seed").n_unique()
    if as_json:
        click.echo(
            json.dumps({"trainings": n_done, "of": len(asked.trainings()), "arms": summary.to_dicts()}, allow_nan=False)
        )
        return
    click.echo("\n".join(summary["verdict"]))
    click.echo(f"{n_done} of {len(asked.trainings())} trainings, results: {asked.folder}")
    if n_done < len(asked.trainings()):
        click.echo(f"next: saerl trial {key} goes on")


@main.group()
def labels() -> None:
    """Give a version labels or a training's log that came after it was registered."""


@labels.command("add")
@click.argument("key", shell_complete=_keys)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--run", "run_name", metavar="NAME", default="", help="What the training is called. Default: as its log.")
@click.option("--no-refresh", is_flag=True, help="Only add them; scores and evidence stay as they are for now.")
def labels_add(key: str, file: Path, run_name: str, *, no_refresh: bool) -> None:
    """Add FILE to version KEY: once for each content, appended, never replaced.

    Read are saerl_log.jsonl, TRL's completions, verl's rollouts, and JSONL, CSV or Parquet with prompt_id or the
    prompt. Rows with a step, reward or loss are a training's; others are labels: correct, pass_rate, difficulty, or the
    spec's. New labels refresh scores and evidence. The manifest in use stays; saerl run KEY plans a new one.

    \b
      saerl labels add mine-v1 graded.jsonl
      saerl labels add mine-v1 out/saerl_log.jsonl --run warmup
    """
    from saerl_assets.automation.late_labels import add_labels

    added = add_labels(_home(), key, file, run_name=run_name, refresh=not no_refresh)
    for line in added.lines():
        click.echo(line)
    if added.failure:
        click.echo(f"error: {added.failure}", err=True)
        sys.exit(EXIT_RUN_FAILED)


@main.command()
@click.option("--yes", is_flag=True, help="Remove them. Without it they are only listed.")
@click.option(
    "--older-than",
    "days",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    default=7.0,
    show_default=True,
    help="Only what has not changed for so long.",
)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def gc(days: float, *, yes: bool, as_json: bool) -> None:
    """List what the home keeps without needing it, and how much that frees; --yes removes it.

    Old shards and caches of runs, exports of manifests that are gone, reports of versions that are gone, artefacts that
    nothing refers to, and what killed processes left half written. Never data that came in, and nothing of a version
    of which a run is going on.
    """
    from saerl_assets.automation.runs import open_instance
    from saerl_assets.automation.upkeep import leftovers
    from saerl_assets.report.words import n_bytes
    from saerl_assets.storage.leftovers import remove

    home = _home()
    with open_instance(home.open().dagster) as instance:
        found = leftovers(home, instance, days)
    total = sum(leftover.n_bytes for leftover in found)
    freed = remove(found) if yes else 0
    if as_json:
        listed = [{"path": str(each.path), "n_bytes": each.n_bytes, "why": each.why} for each in found]
        click.echo(json.dumps({"leftovers": listed, "n_bytes": total, "freed_bytes": freed, "removed": yes}))
        return
    _table(["what", "bytes", "why"], [(str(each.path), f"{each.n_bytes:,}", each.why) for each in found])
    if not found:
        click.echo(f"Nothing that is older than {days:g} days can go.")
    elif yes:
        click.echo(f"removed {len(found)}: that freed {n_bytes(freed)}")
    else:
        click.echo(f"{len(found)} can go, which frees {n_bytes(total)}\nnext: saerl gc --yes")


@main.command()
@click.argument("target", metavar="TO")
@click.option("--data-path", metavar="PLACE", default="", help="For a lake: folder or s3://bucket/prefix of its files.")
@click.option("--stay", is_flag=True, help="Only copy and compare; the home keeps using the warehouse that it has.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def migrate(target: str, data_path: str, *, stay: bool, as_json: bool) -> None:
    """Move all tables to another warehouse: from the home's file to a lake, or back.

    TO is a lake (ducklake:...), a DuckDB file, or `local` for the file in the home. Rows and digest of every table are
    compared on both sides; then <home>/warehouse.toml names the new one, and every command uses it. What was there
    before stays as it is. Interrupted? Run it again: it goes on. Stop what writes to the home first.

    Passwords and keys come from the environment: PGPASSWORD, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and
    AWS_ENDPOINT_URL for a store that is not Amazon's.

    \b
      saerl migrate "ducklake:postgres:dbname=lake host=db user=saerl" --data-path s3://team-rl/tables
      saerl migrate ducklake:lake.ducklake --data-path tables      one machine, no server
      saerl migrate local                                          back into the home
    """
    from dataclasses import asdict

    from saerl_assets.storage.transfer import move_tables, target_home, use_warehouse
    from saerl_assets.storage.warehouse import Warehouse

    home = _home()
    source = home.warehouse()
    goal = target_home(home.open(), target, data_path)
    moved = move_tables(
        source, Warehouse(goal), lambda line: click.echo(line, err=True), None if stay else lambda: use_warehouse(goal)
    )
    # SAERL_WAREHOUSE and definitions in code come before the home's own setting.
    used = home.open().warehouse_place == goal.warehouse_place
    n_rows = sum(each.n_rows for each in moved)
    if as_json:
        said = {"from": source.database.place, "to": goal.warehouse_place, "used": used, "rows": n_rows}
        click.echo(json.dumps({**said, "tables": [asdict(each) for each in moved]}))
        return
    click.echo(f"{n_rows:,} rows in {len(moved)} tables, the same on both sides: {goal.warehouse_place}")
    if used:
        click.echo("the home uses it from now on; next: saerl doctor")
    elif not stay:
        click.echo("next: SAERL_WAREHOUSE or your definitions name another warehouse: change that")


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes verbs, options and version keys in a shell.

    \b
      bash  saerl completion bash > ~/.local/share/bash-completion/completions/saerl
      zsh   saerl completion zsh > "${fpath[1]}/_saerl"
      fish  saerl completion fish > ~/.config/fish/completions/saerl.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - one of the choices
    click.echo(made(main, {}, "saerl", "_SAERL_COMPLETE").source())


@main.command()
def doctor() -> None:
    """Look for what would keep this from working: packages, device, model, disk, warehouse, locks."""
    from saerl_assets.automation.doctor import examine

    findings = examine(_home(), _compute())
    _table(
        ["", "what", "found"],
        [("ok" if finding.fine else "!!", finding.what, finding.found) for finding in findings],
    )
    if not all(finding.fine for finding in findings):
        sys.exit(EXIT_USER_ERROR)


def _of_the_disk(failure: Exception) -> SaerlError | None:
    """What Dagster's own database or a library says of the disk, as an error that a person can put right."""
    from saerl_assets.domain.errors import SaerlError

    said = str(failure)
    if isinstance(failure, PermissionError) and failure.filename is not None:
        remedy = "Give yourself permission to it, or name another place."
        return SaerlError("not_writable", f"It may not be used: {said}.", where=str(failure.filename), remedy=remedy)
    if any(words in said for words in _REFUSED_BY_THE_DISK):
        from saerl_assets.storage.home import find_home

        remedy = "Give write permission to the home, or choose another with --home or SAERL_HOME."
        problem = f"The home cannot be written: {said.splitlines()[0]}."
        return SaerlError("home_not_writable", problem, where=str(find_home().root), remedy=remedy)
    if any(words in said for words in ("No space left on device", "disk I/O error", "database or disk is full")):
        from saerl_assets.storage.home import find_home

        remedy = "Make room, then run again; it resumes. saerl doctor shows how much there is."
        return SaerlError("disk_full", "The disk is full.", where=str(find_home().root), remedy=remedy)
    return None


def _home() -> HomeResource:
    from saerl_assets.automation.jobs import project_home

    return project_home()


def _compute() -> ComputeResource:
    from saerl_assets.automation.jobs import project_compute

    return project_compute()


def _draft(source: str, key: str | None) -> Path:
    """Writes the spec that `--from` asks for and shows it."""
    from saerl_assets.domain.errors import SaerlError
    from saerl_assets.domain.spec import KEY_PATTERN
    from saerl_assets.domain.spec_draft import draft_key, draft_spec
    from saerl_assets.storage.sources import read_source, resolve_source

    uri = source if source.split(":", 1)[0] in {"hf", "gym", "path"} else f"path:{source}"
    chosen = key or draft_key(uri)
    if not KEY_PATTERN.fullmatch(chosen):
        remedy = "Write <name>-v<n> in lower case, such as 'math-v1'."
        raise SaerlError("spec_invalid", f"{chosen!r} is not a version key.", where="--key", remedy=remedy)
    path = Path(f"{chosen}.toml")
    if path.exists():
        remedy = f"Register it as it is: saerl register {path}; or choose another --key."
        raise SaerlError("spec_exists", "There is a spec of that name already.", where=str(path), remedy=remedy)
    resolved = resolve_source(uri, Path.cwd())
    text = draft_spec(read_source(resolved), source=uri, key=chosen)
    path.write_text(text, encoding="utf-8")
    click.echo(text)
    click.echo(f"written to {path}")
    return path


def _frame(frame: pl.DataFrame, style: str, out: Path | None = None) -> None:
    """Prints a frame, or writes it to a file."""
    if out is not None:
        _write(frame, style, out)
        click.echo(f"{frame.height:,} rows written to {out}")
    elif style == "parquet":
        raise click.UsageError("--format parquet needs --out FILE.")
    elif style == "table":
        _table(frame.columns, [[_cell(value) for value in row] for row in frame.iter_rows()])
    else:
        click.echo(frame.write_json() if style == "json" else _csv(frame))


def _write(frame: pl.DataFrame, style: str, out: Path) -> None:
    from saerl_assets.domain.errors import SaerlError

    try:
        if style == "parquet":
            frame.write_parquet(out)
        else:
            out.write_text(frame.write_json() if style == "json" else _csv(frame), encoding="utf-8")
    except OSError as error:
        remedy = "Give a file in a folder that is there and that you may write to."
        raise SaerlError("not_writable", f"It cannot be written: {error}.", where=str(out), remedy=remedy) from error


def _csv(frame: pl.DataFrame) -> str:
    """CSV with lists as JSON, because CSV has none of its own."""
    import polars as pl

    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    texts = {
        name: [None if value is None else json.dumps(value, default=str) for value in frame[name].to_list()]
        for name in nested
    }
    return frame.with_columns(pl.Series(name, values, dtype=pl.String) for name, values in texts.items()).write_csv()


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _table(columns: list[str], rows: Any) -> None:  # noqa: ANN401 - any rows of texts
    """Prints a table as wide as the terminal, or as wide as it is where the output is no terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


if __name__ == "__main__":
    main()
