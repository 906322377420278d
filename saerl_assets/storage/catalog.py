"""The dataset versions of a warehouse: registering, looking up, deleting, choosing a manifest.

Belongs here: the rows of `versions` and `manifests`. Does not belong here: Dagster's partitions; whoever registers a
version adds its partition too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.manifests import MIN_DIGITS, manifests_named
from saerl_assets.domain.spec import VersionSpec, canonical_json, digest, from_canonical, spec_digest
from saerl_assets.storage.notes import Note, remove_note, write_note
from saerl_assets.storage.schema import tables
from saerl_assets.storage.sources import ResolvedSource, resolve_source, still_there
from saerl_assets.storage.warehouse import Warehouse


@dataclass(frozen=True)
class Version:
    """A registered version: what it is, and what its names stood for when it was registered."""

    spec: VersionSpec
    digest: str
    folder: Path
    sources: dict[str, ResolvedSource]
    current_manifest_id: str | None
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By setting what a value of `best` was resolved to, with the figures that spoke for it."""

    @property
    def key(self) -> str:
        """The version's key."""
        return self.spec.key


class Catalog:
    """The versions of one warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse

    def keys(self) -> list[str]:
        """Keys of all versions, sorted; empty where there is no warehouse yet."""
        if not self.warehouse.exists():
            return []
        return sorted(self.warehouse.rows("versions", ["dataset_version"])["dataset_version"].to_list())

    def register(self, spec: VersionSpec, folder: Path) -> Version:
        """Records a version with every resolved choice; the same spec again changes nothing.

        Args:
            spec: What the version is.
            folder: Where relative paths in it start.

        Raises:
            SaerlError: `version_exists` if another spec has the key, `unknown_parent`, or what is wrong with a source.
        """
        known = self.keys()
        if spec.parent is not None and spec.parent not in known:
            remedy = f"Register it first, or name one of: {', '.join(known) or 'none yet'}."
            raise SaerlError(
                "unknown_parent",
                f"The parent {spec.parent!r} is not registered.",
                where="parent",
                remedy=remedy,
            )
        sources = {name: resolve_source(source, folder) for name, source in spec.sources().items()}
        if spec.key in known:
            return self._same_or_refused(spec, sources, known)
        resolved = {
            "folder": str(folder.resolve()),
            "sources": {name: vars(source) for name, source in sources.items()},
        }
        row = {
            "dataset_version": spec.key,
            "description": spec.description,
            "parent": spec.parent,
            "spec": canonical_json(spec),
            "spec_digest": spec_digest(spec),
            "resolved": json.dumps(resolved, sort_keys=True),
            "registered_at": datetime.now(UTC).replace(tzinfo=None),
            "current_manifest_id": None,
        }
        schema = {column.name: column.dtype for column in tables()["versions"].columns}
        self.warehouse.store("versions", pl.DataFrame([row], schema=schema), spec.key)
        # Another process may have been faster; the table keeps the first row of a key.
        return self._same_or_refused(spec, sources, known)

    def _same_or_refused(self, spec: VersionSpec, sources: dict[str, ResolvedSource], known: list[str]) -> Version:
        """The version that has the key, if it is the very same."""
        present = self.get(spec.key)
        if present.spec == spec and _digests(present.sources) == _digests(sources):
            write_note(self.warehouse.home, _note(present))
            return present
        changed = "spec" if present.spec != spec else "data"
        raise SaerlError(
            "version_exists",
            f"{spec.key!r} is registered with another {changed}; a version never changes.",
            where="key",
            remedy=f"Register this as {_next_key(spec.key, known)!r}, or remove the other: saerl delete {spec.key}",
        )

    def check(self, key: str) -> None:
        """Whether there is such a version, damaged or not.

        Raises:
            SaerlError: `unknown_version`, naming those that there are.
        """
        known = self.keys()
        if key not in known:
            remedy = f"Registered: {', '.join(known) or 'none; register one with saerl register SPEC.toml'}."
            raise SaerlError("unknown_version", f"There is no version {key!r}.", remedy=remedy)

    def get(self, key: str) -> Version:
        """A registered version.

        Raises:
            SaerlError: `unknown_version`, naming those that there are; `version_damaged` if its row is not what was
                registered, `version_other_release`.
        """
        self.check(key)
        row = self.warehouse.rows("versions", dataset_version=key).row(0, named=True)
        try:
            if digest(json.loads(row["spec"])) != row["spec_digest"]:
                raise _damaged(key, "its spec has another digest than when it was registered")
            resolved = json.loads(row["resolved"])
            folder = Path(resolved["folder"])
            sources = {name: ResolvedSource(**source) for name, source in resolved["sources"].items()}
            choices = dict(resolved.get("choices", {}))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(key, f"{type(error).__name__}: {error}") from error
        return Version(
            spec=from_canonical(row["spec"]),
            digest=row["spec_digest"],
            folder=folder,
            sources=sources,
            current_manifest_id=row["current_manifest_id"],
            choices=choices,
        )

    def record_choice(self, key: str, setting: str, choice: dict[str, Any]) -> dict[str, Any]:
        """Records what a setting of `best` was resolved to, unless it was before: a version never changes.

        Args:
            key: The version.
            setting: Name of the setting, such as `difficulty.predictor`.
            choice: What it is resolved to with its figures, as JSON can hold it.

        Returns:
            The choice that stands: this one, or the one of before.

        Raises:
            SaerlError: `unknown_version`.
        """
        self.get(key)

        def record(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
            found = connection.execute("SELECT resolved FROM versions WHERE dataset_version = ?", [key]).fetchone()
            resolved = json.loads(found[0]) if found else {}
            standing: dict[str, Any] = resolved.setdefault("choices", {}).setdefault(setting, choice)
            document = json.dumps(resolved, sort_keys=True)
            connection.execute("UPDATE versions SET resolved = ? WHERE dataset_version = ?", [document, key])
            return standing

        return self.warehouse.transact(f"{key} {setting}", record)

    def verify_sources(self, version: Version) -> None:
        """Checks that the version's files still have the bytes that they were registered with.

        Raises:
            SaerlError: `source_changed`, or what is wrong with the file.
        """
        for name, then in version.sources.items():
            if then.kind == "hf":
                continue  # a commit of a hub never changes, and asking needs a network
            now = still_there(then, version.spec.sources()[name], version.folder)
            if now.digest != then.digest:
                raise SaerlError(
                    "source_changed",
                    f"The {name} of {version.key!r} has changed since it was registered: {then.n_bytes:,} bytes with "
                    f"digest {then.digest[:12]} then, {now.n_bytes:,} bytes with digest {now.digest[:12]} now.",
                    where=now.location,
                    remedy="Put the old file back, or register the new data as a version of its own.",
                )

    def set_current_manifest(self, key: str, manifest_id: str) -> None:
        """Makes one of the version's manifests the current one, by its id or its first `MIN_DIGITS` digits or more.

        Raises:
            SaerlError: `unknown_manifest`, naming those that there are.
        """
        known = self.warehouse.rows("manifests", dataset_version=key)["manifest_id"].to_list()
        matches = manifests_named(known, manifest_id)
        if len(matches) != 1:
            listed = ", ".join(known_id[:12] for known_id in known) or "none yet"
            remedy = f"Give as many digits as name one, {MIN_DIGITS} at least. Manifests of {key}: {listed}."
            raise SaerlError("unknown_manifest", f"{manifest_id!r} names {len(matches)} manifests.", remedy=remedy)
        self.warehouse.transact(f"{key} current manifest", lambda connection: make_current(connection, key, matches[0]))

    def delete(self, key: str) -> dict[str, int]:
        """Removes a version's rows from every table, and the shared rows that no other version uses.

        Returns:
            Rows removed, by table.

        Raises:
            SaerlError: `unknown_version`, or `has_children` if another version continues this one.
        """
        self.check(key)
        children = self.warehouse.rows("versions", ["dataset_version"], parent=key)["dataset_version"].to_list()
        if children:
            remedy = f"Delete {', '.join(children)} first."
            raise SaerlError("has_children", f"{key!r} is the parent of {', '.join(children)}.", remedy=remedy)
        removed = self.warehouse.transact(f"{key} delete", lambda connection: _delete_rows(connection, key))
        remove_note(self.warehouse.home, key)
        return removed


def _delete_rows(connection: duckdb.DuckDBPyConnection, key: str) -> dict[str, int]:
    """Removes a version's rows, then the shared ones that no other version needs; the number of each, by table."""
    removed: dict[str, int] = {}
    for table in tables().values():
        if table.is_versioned:
            statement = f'DELETE FROM "{table.name}" WHERE dataset_version = ?'  # noqa: S608 - our own names
            row = connection.execute(statement, [key]).fetchone()
            removed[table.name] = int(row[0]) if row else 0
    columns = "SELECT dataset_version, encoder_id"
    encoders = f"(FROM sae_weights {columns} UNION ALL FROM control_saes {columns})"
    for name, column, makers in (
        ("prompt_features", "encoder_id", encoders),
        ("prompt_states", "reading_id", "sae_weights"),
    ):
        statement = (
            f"DELETE FROM {name} WHERE NOT EXISTS (SELECT 1 FROM prompts p JOIN {makers} w "  # noqa: S608
            f"USING (dataset_version) WHERE w.{column} = {name}.{column} AND p.text_id = {name}.text_id)"
        )
        row = connection.execute(statement).fetchone()
        removed[name] = int(row[0]) if row else 0
    row = connection.execute(
        "DELETE FROM sentence_embeddings WHERE NOT EXISTS "
        "(SELECT 1 FROM prompts p WHERE left(sha256(p.text), 32) = sentence_embeddings.text_digest)"
    ).fetchone()
    removed["sentence_embeddings"] = int(row[0]) if row else 0
    return removed


def make_current(connection: duckdb.DuckDBPyConnection, key: str, manifest_id: str) -> None:
    """Makes a manifest the version's current one, as a part of the caller's transaction."""
    connection.execute("UPDATE versions SET current_manifest_id = ? WHERE dataset_version = ?", [manifest_id, key])


def _damaged(key: str, why: str) -> SaerlError:
    problem = f"What is kept of {key!r} was changed or damaged: {why}."
    remedy = f"Restore the warehouse from its backup, or remove the version and register it again: saerl delete {key}"
    return SaerlError("version_damaged", problem, where="table versions", remedy=remedy)


def _note(version: Version) -> Note:
    """What sensors may know of a version."""
    spec = version.spec
    return Note(
        key=spec.key,
        parent=spec.parent,
        source=spec.data.source,
        folder=str(version.folder),
        digest=version.sources["data"].digest,
        watch=spec.data.watch,
        follows_feedback=spec.batches.feedback is not None,
    )


def _digests(sources: dict[str, ResolvedSource]) -> dict[str, str]:
    return {name: source.digest for name, source in sources.items()}


def _next_key(key: str, known: list[str]) -> str:
    name, _, number = key.rpartition("-v")
    following = int(number) + 1
    while f"{name}-v{following}" in known:
        following += 1
    return f"{name}-v{following}"
