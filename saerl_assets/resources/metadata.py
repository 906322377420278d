"""What an asset's page shows of it: the first rows and a figure.

Belongs here: frames and figures as Dagster's metadata. Does not belong here: drawing, which is `report`'s.
"""

import re

import dagster as dg
import polars as pl

from saerl_assets.report.style import as_markdown
from saerl_assets.report.words import least_shown

PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 40
ID_CHARACTERS = 13
"""Enough of an id or a digest to know it again."""
_DIGEST = re.compile("[0-9a-f]{32,}")


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A figure, with a text for those who cannot see it."""
    return dg.MetadataValue.md(as_markdown(png, alt))


def preview(frame: pl.DataFrame) -> dg.TableMetadataValue:
    """The first rows as a table that the UI opens; long texts and ids are cut short."""
    names = [name for name in frame.columns if name != "dataset_version"]
    least = {name: least_shown(frame[name]) for name in names if frame.schema[name].is_float()}
    records = [
        dg.TableRecord({name: _cell(value, least.get(name, 0.0)) for name, value in row.items()})
        for row in frame.select(names).head(PREVIEW_ROWS).iter_rows(named=True)
    ]
    return dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(name) for name in names]))


def _cell(value: object, least: float) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and abs(value) < least:
        return "0"
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    limit = ID_CHARACTERS if _DIGEST.fullmatch(text) else PREVIEW_CHARACTERS
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
