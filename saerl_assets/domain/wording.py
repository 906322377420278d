"""Texts as they are compared: words without case and punctuation.

Belongs here: what of a text counts when it is held against another. Does not belong here: the quantities that tell
problems apart (quantities), holding texts against each other (alignment, text_pairs, contamination), and the canonical
form that identity follows from (messages).
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

DECIMAL_POINT = "\N{MODIFIER LETTER HALF TRIANGULAR COLON}"
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


class Separating(dict[int, str]):
    """What each character becomes before a text is cut at its spaces, for `str.translate`; filled as they come."""

    def __missing__(self, code: int) -> str:
        self[code] = self.becomes(chr(code))
        return self[code]

    def becomes(self, character: str) -> str:
        """The character itself, between spaces where it is a word of its own, or a space where it does not count."""
        kind = unicodedata.category(character)
        if kind[0] in "LN":
            unspaced = any(first <= ord(character) <= last for first, last in _UNSPACED)
            return f" {character}" if unspaced else character
        if kind[0] == "M":
            return character
        return f" {character} " if kind[0] == "S" or character in _OPERATORS else " "


_SEPARATING = Separating()


def tokens(text: str) -> list[str]:
    """The words, numbers, operators and symbols of a text, in order.

    Case, punctuation, white space, hyphens between words, and the commas and typographic variants of numbers are
    gone; compatibility characters are their plain ones (Unicode's NFKC). Of scripts that put no space between words,
    each letter is a word.
    """
    return prepared(text).translate(_SEPARATING).replace(DECIMAL_POINT, ".").split()


def words(text: str) -> list[str]:
    """The tokens that are words or numbers: what n-grams are made of."""
    return [token for token in tokens(text) if token[0].isalnum()]


def shingles(text: str) -> frozenset[str]:
    """All pieces of five characters of a text, as `tokens` leaves it; the text itself where it is shorter.

    A text without any token is compared as it stands.
    """
    plain = " ".join(tokens(text)) or text
    last = max(len(plain) - SHINGLE_CHARACTERS, 0)
    return frozenset(plain[start : start + SHINGLE_CHARACTERS] for start in range(last + 1))


def prepared(text: str) -> str:
    """A text in small letters with plain characters, numbers and hyphens, its decimal points as DECIMAL_POINT."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_SAME_SIGN)
    return _HYPHEN.sub(" ", _DECIMAL.sub(DECIMAL_POINT, _THOUSANDS.sub("", plain)))
