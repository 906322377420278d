"""Holding a frame against the table that it is meant for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saerl_assets.storage.schema import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl


def assert_is_table(frame: pl.DataFrame, name: str, *, without: Sequence[str] = ()) -> None:
    """The frame has the table's columns in its order and types, no null where none may be, and no key twice.

    Args:
        frame: What a domain function returned.
        name: The table.
        without: Columns that others fill in; `dataset_version` is always one.
    """
    table = tables()[name]
    columns = [column for column in table.columns if column.name not in {"dataset_version", *without}]
    assert dict(frame.schema) == {column.name: column.dtype for column in columns}
    assert frame.columns == [column.name for column in columns]
    for column in columns:
        assert column.nullable or frame[column.name].null_count() == 0
    assert not frame.select(key for key in table.key if key != "dataset_version").is_duplicated().any()
