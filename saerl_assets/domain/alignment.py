"""Two texts laid upon each other: whether their quantities stand between the same words.

Belongs here: telling a text in which a sentence moved from one in which two numbers changed places. Does not belong
here: what a quantity is (quantities), and finding texts that are alike (text_pairs, feature_pairs).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.quantities import parts

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from saerl_assets.domain.quantities import Part


def agreeing(texts: Sequence[str], pairs: pl.DataFrame) -> pl.Series:
    """Of pairs of rows, `first` and `second`, whether their texts state the same quantities, see `state_the_same`."""
    found = []
    row = -1
    own: list[Part] = []
    for first, second in pairs.select("first", "second").iter_rows():
        if first != row:
            row, own = first, parts(texts[first])
        found.append(state_the_same(own, parts(texts[second])))
    return pl.Series("agrees", found, dtype=pl.Boolean)


def state_the_same(one: Sequence[Part], other: Sequence[Part]) -> bool:
    """Whether two texts have the same quantities in the same order, once moved words are moved back.

    '7 - 4' and '4 - 7' are different, 'Ann has 3. Ben eats 5.' and 'Ben eats 5. Ann has 3.' are the same. A quantity
    moves with the word before it and with the word after it, of its own sentence where there is one; where the two
    part ('12 dollars and 45 euros', '12 euros and 45 dollars'), the texts are different.
    """
    wanted, given = _quantities(one), _quantities(other)
    if sorted(wanted) != sorted(given):
        return False
    if len(set(wanted)) < 2:
        return True
    # A line that ends without a stop runs into the next one where it has moved: the other text may still tell.
    return _moves_onto(other, one) or _moves_onto(one, other)


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


def _moves_onto(moved: Sequence[Part], wanted: Sequence[Part]) -> bool:
    """Whether the quantities of a text are in the order of another's, once its words are."""
    order = matched_words(
        [part.text for part in wanted if not part.is_quantity], [part.text for part in moved if not part.is_quantity]
    )
    given = _quantities(moved)
    if order == sorted(order):
        return given == _quantities(wanted)
    rank = {word: place for place, word in enumerate(order)}
    before, after = _words_before(moved, rank), _words_after(moved, rank)
    return all(
        [given[place] for place in _by_rank(first, second, rank)] == _quantities(wanted)
        for first, second in ((before, after), (after, before))
    )


@dataclass(frozen=True)
class _Beside:
    """The matched words beside a quantity on one side, none where there is none."""

    of_sentence: int | None
    of_text: int | None


def _words_before(text: Sequence[Part], matched: Container[int]) -> list[_Beside]:
    """Of every quantity the last matched word before it."""
    found = []
    n_words, of_sentence, of_text = 0, None, None
    for part in text:
        if part.is_quantity:
            found.append(_Beside(of_sentence, of_text))
        else:
            if n_words in matched:
                of_sentence = of_text = n_words
            n_words += 1
        of_sentence = None if part.ends_sentence else of_sentence
    return found


def _words_after(text: Sequence[Part], matched: Container[int]) -> list[_Beside]:
    """Of every quantity the first matched word after it."""
    found = []
    n_words, of_sentence, of_text = sum(not part.is_quantity for part in text), None, None
    for part in reversed(text):
        of_sentence = None if part.ends_sentence else of_sentence
        if part.is_quantity:
            found.append(_Beside(of_sentence, of_text))
        else:
            n_words -= 1
            if n_words in matched:
                of_sentence = of_text = n_words
    return found[::-1]


def _by_rank(first: Sequence[_Beside], second: Sequence[_Beside], rank: Mapping[int, int]) -> list[int]:
    """The places of the quantities in the order of their words: those of the first side, else of the second."""

    def place_of(place: int) -> tuple[int, int]:
        one, other = first[place], second[place]
        words = (one.of_sentence, other.of_sentence, one.of_text, other.of_text)
        return next((rank[word] for word in words if word is not None), -1), place

    return sorted(range(len(first)), key=place_of)


def _quantities(text: Sequence[Part]) -> list[str]:
    return [part.text for part in text if part.is_quantity]
