"""Cells that several tables have: prompts by id, clusters, ranks, what is kept.

Belongs here: how one value of a version is said in a table. Does not belong here: which tables there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.blocks import Cell, number
from saerl_assets.report.words import count, cut, figure, share, short

if TYPE_CHECKING:
    from collections.abc import Iterable

    from saerl_assets.report.inputs import ReportInputs


def texts_of(inputs: ReportInputs, prompt_ids: Iterable[str | None]) -> dict[str, str]:
    """The texts of a few prompts, by id; an id that is no prompt of the version is left out."""
    wanted = pl.Series("prompt_id", sorted({name for name in prompt_ids if name}), dtype=pl.String)
    found = inputs.prompts.filter(pl.col("prompt_id").is_in(wanted.implode()))
    return dict(found.select("prompt_id", "text").iter_rows())


def unfold(texts: dict[str, str], prompt_ids: list[str] | None, noun: str) -> Cell:
    """The first text, with the others to unfold."""
    said = [cut(texts.get(name, f"prompt {short(name)}"), 240) for name in prompt_ids or []]
    if not said:
        return Cell("none")
    return Cell(said[0], more=tuple(said[1:]), tag="" if len(said) == 1 else count(len(said) - 1, f"more {noun}"))


def cluster_cell(cluster: int | None) -> Cell:
    """A cluster by its number."""
    return number(cluster, "" if cluster is None else str(cluster))


def rank_cell(rank: float | None, difficulty: float | None, least: float = 0.0) -> Cell:
    """A difficulty with its rank in the version as a bar; what is smaller than `least` is 0."""
    return number(rank, "" if difficulty is None else figure(difficulty, least), share=rank)


def kept_cell(kept: bool | None) -> Cell:  # noqa: FBT001 - a value of a table
    """Whether the quality filter keeps it."""
    if kept is None:
        return Cell("")
    return Cell("kept", tag="good") if kept else Cell("dropped", tag="bad")


def topic_cell(topic: str | None, fraction: float | None) -> Cell:
    """A topic and its share."""
    if topic is None:
        return Cell("")
    return Cell(f"{topic} {share(fraction)}" if fraction is not None else topic)


def known(value: float | None) -> str:
    """A figure, or nothing where it is not known: in a table an empty cell says so."""
    return "" if value is None else figure(value)
