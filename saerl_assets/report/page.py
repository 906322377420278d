"""The page of a version: one HTML file that needs no other and opens from a disk.

Belongs here: filling the template. Does not belong here: what the page says (sections.py, tables.py,
verdicts.py) and how it looks (page.html, page.css, page.js beside this file).
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from saerl_assets.report.inputs import ReportInputs
from saerl_assets.report.sections import all_sections, headline, summary_blocks
from saerl_assets.report.words import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ReportInputs", "render_report"]


def render_report(inputs: ReportInputs) -> str:
    """Writes the page of a version.

    Every text is escaped, and the page forbids itself any script but its own and any address at all, so that
    a prompt cannot run or fetch anything. Equal inputs give equal bytes: there is no clock in it.

    Args:
        inputs: The version's tables.

    Returns:
        An HTML document, under 3 MB for 2,000 prompts.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_control_characters,
    )
    environment.filters["scales"] = _scales
    return environment.get_template("page.html").render(
        spec=inputs.spec,
        manifest_id=inputs.manifest_id,
        generated_with=inputs.generated_with,
        headline=headline(inputs),
        summary=summary_blocks(inputs),
        sections=all_sections(inputs),
        style=style,
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def _scales(values: Sequence[float | None]) -> str:
    """Values between 0 and 1 in hundredths, with commas between; nothing where there is none."""
    return ",".join("" if value is None else f"{100 * value:.0f}" for value in values)


def _without_control_characters(value: object) -> object:
    """What the template does to every value before it escapes it; what is markup already stays as it is."""
    return printable(value) if type(value) is str else value
