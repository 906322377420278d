"""Two texts laid upon each other: whether their quantities stand between the same words.

Belongs here: telling a text in which a sentence moved from one in which two numbers changed places. Does not belong
here: what a quantity is (quantities), and finding texts that are alike (text_pairs, feature_pairs).
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.quantities import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saerl_assets.domain.quantities import Part


def agreeing(texts: Sequence[str], pairs: pl.DataFrame) -> pl.Series:
    """Of pairs of rows, `first` and `second`, whether their texts state the same quantities, see `state_the_same`."""
    found = []
    row, own = -1, list["Part"]()
    for first, second in pairs.select("first", "second").iter_rows():
        if first != row:
            row, own = first, parts(texts[first])
        found.append(state_the_same(own, parts(texts[second])))
    return pl.Series("agrees", found, dtype=pl.Boolean)


def state_the_same(one: Sequence[Part], other: Sequence[Part]) -> bool:
    """Whether two texts have the same quantities in the same order, once moved words are moved back.

    Quantities move with the words before them and with those after them: '7 - 4' and '4 - 7' are different, 'Ann has
    3. Ben eats 5.' and 'Ben eats 5. Ann has 3.' are the same. Where a sentence that begins or ends with a quantity
    has moved, it cannot be told to which words that one belongs, and the texts count as different.
    """
    wanted, given = _quantities(one), _quantities(other)
    if sorted(wanted) != sorted(given):
        return False
    if len(set(wanted)) < 2:
        return True
    order = matched_words(
        [part.text for part in one if not part.is_quantity], [part.text for part in other if not part.is_quantity]
    )
    if order == sorted(order):
        return wanted == given
    return wanted == _moved_back(other, order) and wanted[::-1] == _moved_back(
        other[::-1], [_n_words(other) - 1 - word for word in order[::-1]]
    )


def matched_words(one: Sequence[str], other: Sequence[str]) -> list[int]:
    """The words of `other` that `one` has too, in the order of `one`, each once.

    The longest runs of words are matched first. What keeps its order is matched before what has moved.
    """
    if one == other:
        return list(range(len(other)))
    places: dict[int, int] = {}
    own, theirs = list(range(len(one))), list(range(len(other)))
    while own and theirs:
        matcher = SequenceMatcher(
            None, [one[place] for place in own], [other[place] for place in theirs], autojunk=False
        )
        runs = matcher.get_matching_blocks()[:-1]
        if not runs:
            break
        for run in runs:
            places |= dict(zip(own[run.a : run.a + run.size], theirs[run.b : run.b + run.size], strict=True))
        used = set(places.values())
        own = [place for place in own if place not in places]
        theirs = [place for place in theirs if place not in used]
    return [places[place] for place in sorted(places)]


def _moved_back(text: Sequence[Part], order: Sequence[int]) -> list[str]:
    """The quantities of a text whose words are put into this order, each following the matched word before it."""
    following: dict[int, list[str]] = {-1: [], **{word: [] for word in order}}
    word, n_seen = -1, 0
    for part in text:
        if part.is_quantity:
            following[word].append(part.text)
        else:
            word = n_seen if n_seen in following else word
            n_seen += 1
    return [quantity for word in (-1, *order) for quantity in following[word]]


def _quantities(text: Sequence[Part]) -> list[str]:
    return [part.text for part in text if part.is_quantity]


def _n_words(text: Sequence[Part]) -> int:
    return sum(not part.is_quantity for part in text)
