"""Two versions held against each other: gathering their tables, and what a person is told.

Belongs here: reading what exists of both, and saying what sets them apart. Does not belong here: comparing (domain),
printing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.version_diff import Change, VersionDiff, VersionState, compare
from saerl_assets.report.words import count, cut, figure, share, short

if TYPE_CHECKING:
    from saerl_assets.domain.version_diff import (
        ClusterDiff,
        DataDiff,
        DifficultyDiff,
        FeatureDiff,
        OrderDiff,
        QualityDiff,
    )
    from saerl_assets.resources.home import HomeResource

Line = tuple[str, str, str, str]
"""Section, what, in the first version, in the second."""

TEXT_LETTERS = 70
N_PAIRS = 5

COLUMNS = {
    "prompts": ("prompt_id", "answer", "topic", "split", "extra"),
    "labels": ("prompt_id", "label", "value"),
    "sae_weights": ("layer", "encoder_id", "digest", "reader_digest"),
    "feature_density": ("feature_id", "n_prompts"),
    "cluster_assignments": ("prompt_id", "cluster_id"),
    "difficulty_scores": ("prompt_id", "difficulty_rank", "score_name"),
    "quality_scores": ("prompt_id", "quality", "kept"),
}


@dataclass(frozen=True)
class Comparison:
    """What sets two versions apart, with the texts of the prompts that are named."""

    diff: VersionDiff
    texts: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """Everything, for scripts."""
        return asdict(self.diff) | {"texts": self.texts}

    def lines(self) -> Iterator[Line]:
        """A line for everything that is another, and one for each section that is the same or cannot be compared."""
        diff = self.diff
        yield from _spec(diff.spec)
        yield from _section("data", None if diff.data is None else self._data(diff.data))
        yield from _section("features", None if diff.features is None else _features(diff.features))
        yield from _section("clusters", None if diff.clusters is None else _clusters(diff.clusters))
        yield from _section("difficulty", None if diff.difficulty is None else self._difficulty(diff.difficulty))
        yield from _section("quality", None if diff.quality is None else _quality(diff.quality))
        yield from _section("order", None if diff.order is None else _order(diff.order))

    def _data(self, data: DataDiff) -> Iterator[tuple[str, str, str]]:
        for source in data.sources:
            yield f"source of {source.what}", _short(source.before), _short(source.after)
        yield "prompts", count(data.n_before), count(data.n_after)
        yield "in one alone", f"{count(data.n_removed)} removed", f"{count(data.n_added)} added"
        fields = ", ".join(f"{name} of {count(n)}" for name, n in data.changed_fields.items())
        yield "in both", count(data.n_common), f"{count(data.n_changed)} changed" + (f": {fields}" if fields else "")
        for label, found in data.labels.items():
            changed = f", {count(found['changed'])} of them other values" if found["changed"] else ""
            yield f"label {label}", count(found["before"]), f"{count(found['after'])}{changed}"
        for name in data.removed:
            yield "removed", self._text(name), ""
        for name in data.added:
            yield "added", "", self._text(name)
        for name in data.changed:
            yield "changed", self._text(name), ""

    def _difficulty(self, found: DifficultyDiff) -> Iterator[tuple[str, str, str]]:
        yield "score in use", found.score_before, found.score_after
        yield "rank correlation", "", f"Spearman {figure(found.spearman)} on {count(found.n_common, 'common prompt')}"
        for name, before, after in found.most_changed:
            yield f"rank of {self._text(name)}", f"{before:.2f}", f"{after:.2f}"

    def _text(self, prompt_id: str) -> str:
        return cut(self.texts.get(prompt_id, short(prompt_id)), TEXT_LETTERS)


def compare_versions(home: HomeResource, before: str, after: str) -> Comparison:
    """What sets the second version apart from the first.

    Raises:
        SaerlError: `unknown_version`.
    """
    first, second = _state(home, before), _state(home, after)
    diff = compare(first, second)
    named = {
        before: [*(diff.data.removed if diff.data else ()), *(diff.data.changed if diff.data else ())],
        after: [*(diff.data.added if diff.data else ()), *(name for name, _, _ in _changed_ranks(diff))],
    }
    texts: dict[str, str] = {}
    for key, ids in named.items():
        wanted = pl.DataFrame({"prompt_id": ids}, schema={"prompt_id": pl.String})
        found = home.warehouse().matching("prompts", wanted, {"dataset_version": key}, ["prompt_id", "text"])
        texts |= dict(found.sort("prompt_id").iter_rows())
    return Comparison(diff, texts)


def _changed_ranks(diff: VersionDiff) -> list[tuple[str, float, float]]:
    return diff.difficulty.most_changed if diff.difficulty else []


def _state(home: HomeResource, key: str) -> VersionState:
    version = home.version(key)
    warehouse = home.warehouse()
    found = {name: warehouse.rows(name, columns, dataset_version=key) for name, columns in COLUMNS.items()}
    manifest = version.current_manifest_id
    order = warehouse.rows(
        "batch_manifest",
        ("prompt_id", "epoch", "step", "slot"),
        manifest_id=manifest or "",
        arm=version.spec.batches.planner,
    )
    return VersionState(
        spec=version.spec,
        sources={name: source.digest for name, source in version.sources.items()},
        prompts=found["prompts"],
        labels=found["labels"],
        sae_weights=found["sae_weights"],
        density=found["feature_density"],
        assignments=found["cluster_assignments"],
        difficulty=found["difficulty_scores"],
        quality=found["quality_scores"],
        order=order,
        manifest_id=manifest,
    )


def _section(name: str, found: Iterator[tuple[str, str, str]] | None) -> Iterator[Line]:
    """The section's name before its first line alone."""
    for place, (what, before, after) in enumerate(found if found is not None else [("not there in both", "", "")]):
        yield "" if place else name, what, before, after


def _spec(changes: list[Change]) -> Iterator[Line]:
    if not changes:
        yield "spec", "the same settings", "", ""
    for place, change in enumerate(changes):
        yield "" if place else "spec", change.what, _value(change.before), _value(change.after)


def _features(found: FeatureDiff) -> Iterator[tuple[str, str, str]]:
    for change in found.encoders:
        yield change.what, _short(change.before), _short(change.after)
    if found.same_encoders:
        yield "encoders", "the same", "the same"
    yield "active features", count(found.n_active_before), count(found.n_active_after)
    if found.n_fell_silent is not None and found.n_woke_up is not None:
        yield "active in one alone", f"{count(found.n_fell_silent)} fell silent", f"{count(found.n_woke_up)} woke up"
    if found.density_shift is not None:
        yield "how often they fire", "", f"{figure(found.density_shift)} apart (Bray-Curtis, 0 is the same)"


def _clusters(found: ClusterDiff) -> Iterator[tuple[str, str, str]]:
    yield "clusters", count(found.n_before), count(found.n_after)
    if not found.n_common:
        yield "prompts in both", "0", ""
        return
    moved = f"{count(found.n_moved)} of {count(found.n_common)} ({share(found.n_moved / found.n_common)})"
    yield "moved to another one", "", moved
    yield "agreement", "", f"{figure(found.agreement)} (adjusted Rand index, 1 is the same grouping)"
    renamed = [pair for pair in found.pairs if pair[0] != pair[1]]
    for before, after, n in renamed[:N_PAIRS]:
        yield "the same under another name", f"cluster {before}", f"cluster {after}, {count(n, 'common prompt')}"


def _quality(found: QualityDiff) -> Iterator[tuple[str, str, str]]:
    yield "kept", count(found.n_kept_before), count(found.n_kept_after)
    yield "of the common prompts", f"{count(found.n_now_dropped)} now dropped", f"{count(found.n_now_kept)} now kept"
    if found.spearman is not None:
        yield "rank correlation", "", f"Spearman {figure(found.spearman)}"


def _order(found: OrderDiff) -> Iterator[tuple[str, str, str]]:
    yield "manifest", short(found.manifest_before), short(found.manifest_after)
    yield "batches", count(found.n_steps_before), count(found.n_steps_after)
    yield "prompts in it", count(found.n_before), count(found.n_after)
    if found.same_step_fraction is not None:
        of = count(found.n_common, "common prompt")
        yield "in the same batch", "", f"{share(found.same_step_fraction)} of {of}"
    if found.spearman is not None:
        yield "places", "", f"Spearman {figure(found.spearman)}, Kendall {figure(found.kendall)}"


def _value(value: object) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(digest: object) -> str:
    return "none" if digest is None else short(str(digest))
