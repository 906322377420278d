"""The first rows of a table as an asset's page shows them."""

from __future__ import annotations

import polars as pl

from saerl_assets.resources.metadata import PREVIEW_CHARACTERS, PREVIEW_ROWS, preview


def test_a_preview_has_the_first_rows_and_cuts_what_is_long() -> None:
    digest = "0123456789abcdef" * 4
    frame = pl.DataFrame(
        {
            "dataset_version": ["a-v1"] * 9,
            "prompt_id": [digest] * 9,
            "text": ["two\n lines | <b>and</b> " + "more " * 40] * 9,
            "difficulty": [0.123456] * 9,
            "topic": [None] * 9,
            "kept": [True] * 9,
        }
    )
    shown = preview(frame)
    assert [column.name for column in shown.schema.columns] == ["prompt_id", "text", "difficulty", "topic", "kept"]
    assert len(shown.records) == PREVIEW_ROWS
    row = shown.records[0].data
    assert row["prompt_id"] == "0123456789ab…"
    assert str(row["text"]).startswith("two lines | <b>and</b> more")
    assert len(str(row["text"])) == PREVIEW_CHARACTERS
    assert (row["difficulty"], row["topic"], row["kept"]) == ("0.1235", "", "True")


def test_what_only_keeps_ties_apart_is_shown_as_0() -> None:
    frame = pl.DataFrame({"difficulty": [4e-7, -4e-7, 0.25, 1.0], "p_value": [4e-7, 5e-7, 6e-7, 7e-7]})
    records = preview(frame).records
    assert [row.data["difficulty"] for row in records] == ["0", "0", "0.25", "1"]
    assert [row.data["p_value"] for row in records] == ["4e-07", "5e-07", "6e-07", "7e-07"]


def test_a_preview_of_nothing_still_names_the_columns() -> None:
    shown = preview(pl.DataFrame(schema={"prompt_id": pl.String, "n_tokens": pl.UInt32}))
    assert [column.name for column in shown.schema.columns] == ["prompt_id", "n_tokens"]
    assert list(shown.records) == []
