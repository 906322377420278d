"""What an asset's page shows of it: the first rows and a figure.

Belongs here: frames and figures as Dagster's metadata. Does not belong here: drawing, which is `report`'s.
"""

import dagster as dg
import polars as pl

from saerl_assets.report.style import as_markdown

PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 60


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A figure, with a text for those who cannot see it."""
    return dg.MetadataValue.md(as_markdown(png, alt))


def preview(frame: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table."""
    names = [name for name in frame.columns if name != "dataset_version"]
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += [
        "| " + " | ".join(_cell(value) for value in row) + " |"
        for row in frame.select(names).head(PREVIEW_ROWS).iter_rows()
    ]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
