"""The quantities of a text: numbers, in digits or in words, and the operators and comparison signs between them.

Belongs here: which parts of a text are quantities. Does not belong here: whether two texts say the same with them
(alignment), and what else of a text is compared (wording).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from saerl_assets.domain.wording import DECIMAL_POINT, Separating, prepared

_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_OTHER_NUMBER_WORDS = (
    "thirty forty fifty sixty seventy eighty ninety hundred thousand million billion dozen dozens first second third "
    "fourth fifth sixth seventh eighth ninth tenth eleventh twelfth half halves thirds quarter quarters fourths fifths "
    "sixths sevenths eighths ninths tenths once twice thrice double doubles doubled triple triples tripled quadruple "
    "quadruples quadrupled halve halved"
)
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_COUNTED.split())} | {
    word: word for word in _OTHER_NUMBER_WORDS.split()
}
"""English words that are numbers, and what each counts as: up to twenty the same as in digits."""

_MATHEMATICAL = "+^<>=\N{PLUS-MINUS SIGN}\N{LESS-THAN OR EQUAL TO}\N{GREATER-THAN OR EQUAL TO}\N{NOT EQUAL TO}"
"""Signs that are operators between words too; those of _TYPOGRAPHIC are punctuation there."""
_TYPOGRAPHIC = "-*/%"
_MINUS = "\N{MODIFIER LETTER MACRON}"
"""Stands for a minus that touches the number after it and no word before it; it counts as a letter."""
_TOUCHING_PLUS = re.compile(r"(?<![\w)\]}])\+(?=\d)")
_TOUCHING_MINUS = re.compile(r"(?<![\w)\]}])-(?=\d)")
_SENTENCE_ENDS = ".?!:;\N{IDEOGRAPHIC FULL STOP}"
_INNER_COLON = re.compile(r"(?<=\d):(?=\d)")
_PART = re.compile(rf"{_MINUS}?\d[\d{DECIMAL_POINT}]*|[^\d{_MINUS}]+|{_MINUS}")
_VARIABLE = re.compile("[a-z\N{GREEK SMALL LETTER ALPHA}-\N{GREEK SMALL LETTER OMEGA}]")

# Of a text whose parts are written as one letter each: number, Signed number, variable, word, typographic sign,
# mathematical sign, brackets, comma, full stop.
_OPERATORS = re.compile(r"(?<=[nSv)])t+(?=[nSv(])|(?<=[nSvw)])t*m[tm]*(?=[nSvw(])|(?<=[nSv)])S")
_BRACKETS = re.compile(r"(?<=O)\(+|\)+(?=O)")


class Part(NamedTuple):
    """A word or a quantity of a text."""

    text: str
    is_quantity: bool
    ends_sentence: bool = False
    """A sentence, or what a colon or semicolon cuts off, ends after it."""


class _Parting(Separating):
    """Keeps what tells an operator from punctuation, and the ends of sentences."""

    def becomes(self, character: str) -> str:
        if character in "()[]":
            return " ( " if character in "([" else " ) "
        if character in _SENTENCE_ENDS:
            return " . "
        return " , " if character == "," else super().becomes(character)


_PARTING = _Parting()


def parts(text: str) -> list[Part]:
    """The words and the quantities of a text, in order, as `wording.tokens` leaves them.

    Quantities are numbers with their signs, the English words of NUMBER_WORDS, numerals that Unicode gives a value
    (the Chinese ones), operators and comparison signs between operands, and brackets beside those.
    """
    found = [piece for piece in _pieces(text) if _kind(piece)]
    kinds = "".join(_kind(piece) for piece in found)
    is_operator = [False] * len(found)
    for run in _OPERATORS.finditer(kinds):
        is_operator[run.start() : run.end()] = [True] * (run.end() - run.start())
    marked = "".join("O" if is_marked else kind for is_marked, kind in zip(is_operator, kinds, strict=True))
    for run in _BRACKETS.finditer(marked):
        is_operator[run.start() : run.end()] = [True] * (run.end() - run.start())
    result: list[Part] = []
    for piece, kind, is_marked in zip(found, kinds, is_operator, strict=True):
        if kind == "S" and is_marked:
            result += [Part("-", is_quantity=True), Part(_number(piece[1:]), is_quantity=True)]
        elif kind in "nS":
            result.append(Part(_number(piece), is_quantity=True))
        elif kind in "vw":
            result.append(Part(piece, is_quantity=False))
        elif kind == "." and result:
            result[-1] = result[-1]._replace(ends_sentence=True)
        elif is_marked or (piece == "%" and result and result[-1].is_quantity):
            result.append(Part(piece, is_quantity=True))
    return result


def quantities(text: str) -> tuple[str, ...]:
    """The quantities of a text, sorted: two problems that differ in them are different, however alike they read.

    Two that agree in them may still be different, see `alignment`: '7 - 4' and '4 - 7' do.
    """
    return tuple(sorted(part.text for part in parts(text) if part.is_quantity))


def _pieces(text: str) -> list[str]:
    """Numbers, words, signs, brackets, commas, and full stops for what ends a sentence."""
    signed = _TOUCHING_MINUS.sub(f" {_MINUS}", _TOUCHING_PLUS.sub(" ", _INNER_COLON.sub(",", prepared(text))))
    return [
        piece
        for token in signed.translate(_PARTING).split()
        for piece in (_PART.findall(token) if token[0].isalnum() else [token])
    ]


def _kind(piece: str) -> str:
    """The letter of a piece, see _OPERATORS; none for symbols that are no operators, such as a dollar sign."""
    if piece in NUMBER_WORDS or piece[0].isnumeric():
        return "n"
    if piece[0] == _MINUS and len(piece) > 1:
        return "S"
    if piece[0].isalpha() or len(piece) > 1:
        return "v" if _VARIABLE.fullmatch(piece) else "w"
    for kind, signs in (("t", _TYPOGRAPHIC), ("m", _MATHEMATICAL), (piece, "(),.")):
        if piece in signs:
            return kind
    return ""


def _number(piece: str) -> str:
    plain = piece.replace(_MINUS, "-").replace(DECIMAL_POINT, ".")
    return NUMBER_WORDS.get(plain, plain)
