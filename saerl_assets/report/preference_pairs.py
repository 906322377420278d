"""Figure of the preference pairs.

Belongs here: `preference_pairs`. Does not belong here: the prompts that they answer (prompts.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.marks import histogram
from saerl_assets.report.style import AMBER, BLUE, card, finite, label, message, png
from saerl_assets.report.words import count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def figure_preference_pairs(pairs: pl.DataFrame) -> bytes:
    """How many pairs the prompts have, and whether the chosen answers are simply the longer ones.

    Args:
        pairs: Table `preference_pairs`.

    Returns:
        PNG bytes.
    """
    if pairs.is_empty():
        return message(
            "No preference pairs",
            "Name the fields of the better and the worse answer in data.chosen and data.rejected of the spec.",
        )
    of_prompts = pairs.group_by("prompt_id").agg(n=pl.len())
    longer = _characters(pairs, "chosen") - _characters(pairs, "rejected")
    drawn = card(
        f"{count(pairs.height, 'pair')} for {count(of_prompts.height, 'prompt')}; "
        f"in {count(int((longer > 0).sum()))} the chosen answer is the longer one",
        widths=[1.0, 1.6],
    )
    counts, differences = drawn.axes
    histogram(counts, {"": finite(of_prompts, "n")}, [BLUE])
    label(counts, x="pairs of a prompt", y="prompts")
    n_beyond = histogram(differences, {"": longer}, [AMBER])
    further = f" ({count(n_beyond)} beyond, not shown)" if n_beyond else ""
    label(differences, x=f"characters by which the chosen answer is longer{further}", y="pairs")
    return png(drawn)


def _characters(pairs: pl.DataFrame, side: str) -> NDArray[np.float64]:
    """Characters of the answers, those of JSON around them left out."""
    message_type = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    contents = pl.col(side).str.json_decode(message_type).list.eval(pl.element().struct.field("content"))
    return finite(pairs.select(n=contents.list.join("").str.len_chars()), "n")
