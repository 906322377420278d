"""Texts as they are compared: words without case and punctuation, and the quantities that tell problems apart.

Belongs here: what of a text counts when it is held against another. Does not belong here: holding texts against each
other (text_pairs, contamination), and the canonical form that identity follows from (messages).
"""

from __future__ import annotations

import re
import unicodedata

SHINGLE_CHARACTERS = 5
"""Characters of a shingle."""

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Japanese syllables
    (0x3400, 0x4DBF),  # Chinese characters, here and in the next three
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Code points of scripts that put no space between words: each of their letters counts as a word."""

_POINT = "\N{MODIFIER LETTER HALF TRIANGULAR COLON}"
"""Stands for a decimal point while a text is cut up: it counts as a letter and no language begins a word with it."""

_SAME_SIGN = str.maketrans(
    {
        "\N{HYPHEN}": "-",
        "\N{NON-BREAKING HYPHEN}": "-",
        "\N{EN DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{MULTIPLICATION SIGN}": "*",
        "\N{DOT OPERATOR}": "*",
        "\N{DIVISION SIGN}": "/",
        "\N{FRACTION SLASH}": "/",
        "\N{DIVISION SLASH}": "/",
    }
)
_OPERATORS = "-*/%"
"""Punctuation by Unicode's account that stands for something in mathematics; the other operators are symbols there."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_QUANTITY = re.compile(rf"(?:(?<![\w)\]}}])[-+])?\d[\d{_POINT}]*")
_BETWEEN = re.compile(r"(?<=\d)\s*([-+*/^])\s*(?=\d)")


class _Separating(dict[int, str]):
    """What each character becomes before a text is cut at its spaces; filled as characters come."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        if kind[0] in "LN":
            unspaced = any(first <= code <= last for first, last in _UNSPACED)
            becomes = f" {character}" if unspaced else character
        elif kind[0] == "M":
            becomes = character
        elif kind[0] == "S" or character in _OPERATORS:
            becomes = f" {character} "
        else:
            becomes = " "
        self[code] = becomes
        return becomes


_SEPARATING = _Separating()


def tokens(text: str) -> list[str]:
    """The words, numbers, operators and symbols of a text, in order.

    Case, punctuation, white space, hyphens between words, and the commas and typographic variants of numbers are
    gone; compatibility characters are their plain ones (Unicode's NFKC). Of scripts that put no space between words,
    each letter is a word.
    """
    return _prepared(text).translate(_SEPARATING).replace(_POINT, ".").split()


def words(text: str) -> list[str]:
    """The tokens that are words or numbers: what n-grams are made of."""
    return [token for token in tokens(text) if token[0].isalnum()]


def quantities(text: str) -> tuple[str, ...]:
    """The numbers of a text with their signs, and the operators between two numbers, sorted.

    Two problems that differ in one of them are different problems, however alike they read. They are not compared in
    their order, so that a sentence may move. Numbers in words ("three") are words.
    """
    prepared = _prepared(text)
    numbers = [number.removeprefix("+").replace(_POINT, ".") for number in _QUANTITY.findall(prepared)]
    return tuple(sorted([*numbers, *_BETWEEN.findall(prepared)]))


def shingles(text: str) -> frozenset[str]:
    """All pieces of five characters of a text, as `tokens` leaves it; the text itself where it is shorter.

    A text without any token is compared as it stands.
    """
    plain = " ".join(tokens(text)) or text
    last = max(len(plain) - SHINGLE_CHARACTERS, 0)
    return frozenset(plain[start : start + SHINGLE_CHARACTERS] for start in range(last + 1))


def _prepared(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_SAME_SIGN)
    return _HYPHEN.sub(" ", _DECIMAL.sub(_POINT, _THOUSANDS.sub("", plain)))
