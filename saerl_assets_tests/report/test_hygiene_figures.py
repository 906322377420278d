"""Figures and tables of hygiene."""

from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.report.hygiene import (
    MAX_ROWS,
    contamination_table,
    figure_contamination,
    figure_near_duplicates,
    near_duplicates_table,
)
from saerl_assets.report.sections import all_sections
from saerl_assets_tests.report.frames import contamination, empty_frames, near_duplicates, report_inputs, the_frames
from saerl_assets_tests.report.test_figures import Frames, check, header


def hygiene_frames(n: int = 60, *, found_by: tuple[str, ...] = ("text", "features", "both")) -> Frames:
    """A version whose first prompts are near-duplicates in pairs, and contaminated too."""
    frames = the_frames(160, n_clusters=20)
    ids = frames["prompts"]["prompt_id"].to_list()[:n]
    return frames | {"near_duplicates": near_duplicates(ids, found_by), "contamination": contamination(ids)}


def draw(frames: Frames) -> tuple[bytes, bytes]:
    return (
        figure_near_duplicates(frames["near_duplicates"], frames["cluster_assignments"]),
        figure_contamination(frames["contamination"]),
    )


@pytest.mark.parametrize("found_by", [("text", "features", "both"), ("features",)])
def test_they_are_drawn_the_same_from_rows_in_any_order(found_by: tuple[str, ...]) -> None:
    frames = hygiene_frames(found_by=found_by)
    drawn = draw(frames)
    for png in drawn:
        check(png)
    shuffled = {table: rows.sample(fraction=1.0, shuffle=True, seed=3) for table, rows in frames.items()}
    assert draw(shuffled) == drawn


def test_without_rows_they_say_so_in_words() -> None:
    for png, full in zip(draw(empty_frames()), draw(hygiene_frames()), strict=True):
        check(png)
        assert header(png)[1] < 200
        assert png != full


def test_one_pair_is_drawn() -> None:
    for png in draw(hygiene_frames(2)):
        check(png)


def test_near_duplicates_without_a_cluster_are_drawn() -> None:
    frames = hygiene_frames()
    check(figure_near_duplicates(frames["near_duplicates"], empty_frames()["cluster_assignments"]))


def test_tables_show_groups_with_their_clusters_and_the_closest_hits() -> None:
    frames = hygiene_frames()
    table = near_duplicates_table(frames["near_duplicates"], frames["prompts"], frames["cluster_assignments"])
    assert len(table.rows) == 60
    assert [row[1].text for row in table.rows[:2]] == ["representative", "copy"]
    clusters = dict(frames["cluster_assignments"].select("prompt_id", "cluster_id").iter_rows())
    assert table.rows[0][4].text == str(clusters[frames["near_duplicates"]["prompt_id"][0]])
    hits = contamination_table(frames["contamination"])
    overlaps = [row[3].order for row in hits.rows]
    assert overlaps == sorted(overlaps, reverse=True)  # type: ignore[type-var]


def test_long_tables_are_cut_and_say_so() -> None:
    frames = hygiene_frames()
    many = pl.concat([frames["contamination"]] * 5)
    table = contamination_table(many)
    assert len(table.rows) == MAX_ROWS
    assert table.caption == f"The closest {MAX_ROWS} of 300 hits"


def test_the_page_shows_near_duplicates_with_the_clusters_and_evaluation_rows_with_the_data() -> None:
    sections = {section.id: section for section in all_sections(report_inputs(hygiene_frames()))}
    tables_of = {name: [getattr(block, "id", "") for block in section.blocks] for name, section in sections.items()}
    assert "near-duplicates-table" in tables_of["clusters"]
    assert "contamination-table" in tables_of["data"]
    none = {section.id: section for section in all_sections(report_inputs(the_frames(160) | nothing_found()))}
    assert "near-duplicates-table" not in [getattr(block, "id", "") for block in none["clusters"].blocks]


def nothing_found() -> Frames:
    return {name: empty_frames()[name] for name in ("near_duplicates", "contamination")}
