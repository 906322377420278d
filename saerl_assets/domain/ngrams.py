"""Words in a row that prompts share with evaluation rows.

Belongs here: finding them, leaving common phrases out, and the evidence. Does not belong here: files and tables
(contamination).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from saerl_assets.domain.wording import tokens, words

Words: TypeAlias = "tuple[str, ...]"

LEAST_WORDS = 8
"""A row of fewer words proves nothing by being somewhere in a prompt: it must be all of the prompt."""
MAX_PROMPTS = 10
"""Words in a row that are in more prompts than this, or in more rows, are a common phrase or a template and prove
nothing by themselves."""


@dataclass(frozen=True)
class Shared:
    """What a prompt and a row have in common."""

    text: str
    """The longest run of words that both have, without case and punctuation."""
    n_words: int
    """Words in it."""
    overlap_fraction: float
    """Share of the row's n-grams that are in the prompt."""
    is_whole: bool
    """The prompt holds the whole row."""


@dataclass
class _Row:
    """What is known of an n-gram of the rows."""

    rows: list[int] = field(default_factory=list)
    """Rows that it is in."""
    prompts: list[int] = field(default_factory=list)
    """Prompts that it is in, at most one more than MAX_PROMPTS."""
    wholes: dict[int, dict[Words, int]] = field(default_factory=dict)
    """Rows that begin with it: by their number of words, by their words."""


class NgramIndex:
    """Evaluation rows, against which prompts are held one after the other.

    N-grams ignore case, punctuation and white space, and n is 13, after Brown et al. 2020, 'Language Models are
    Few-Shot Learners', arXiv 2005.14165, appendix C, which takes the length of short rows as n, between 8 and 13, and
    ignores n-grams that more than 10 documents share. Here each row of 8 to 13 words is its own n-gram, and one of
    fewer words counts where it is the whole prompt, operators included. Phrases that more than 10 prompts or 10 rows
    share prove nothing by themselves, but a prompt that holds a whole row always counts.

    Args:
        rows: What the evaluation rows ask; rows with the same words count as the first of them.
        n_words: Words of an n-gram.
    """

    def __init__(self, rows: Sequence[str], n_words: int) -> None:
        self._n_words = n_words
        self._ngrams: defaultdict[Words, _Row] = defaultdict(_Row)
        self._short: dict[Words, int] = {}
        self._hits: set[tuple[int, int]] = set()
        self._n_prompts = 0
        known: set[Words] = set()
        for number, text in enumerate(rows):
            row = tuple(words(text))
            if len(row) < min(LEAST_WORDS, n_words):
                if whole := tuple(tokens(text)):
                    self._short.setdefault(whole, number)
            elif row not in known:
                known.add(row)
                self._add_row(row, number)
        self._sizes = sorted({len(ngram) for ngram in self._ngrams})

    def add(self, text: str) -> None:
        """Holds the next prompt against all rows."""
        prompt, self._n_prompts = self._n_prompts, self._n_prompts + 1
        whole = tuple(tokens(text))
        if (short := self._short.get(whole)) is not None:
            self._hits.add((prompt, short))
        own = tuple(token for token in whole if token[0].isalnum())
        for size in self._sizes:
            for start in range(len(own) - size + 1):
                if (known := self._ngrams.get(own[start : start + size])) is None:
                    continue
                if len(known.prompts) <= MAX_PROMPTS and prompt not in known.prompts[-1:]:
                    known.prompts.append(prompt)
                for length, by_words in known.wholes.items():
                    if (row := by_words.get(own[start : start + length])) is not None:
                        self._hits.add((prompt, row))

    def pairs(self) -> list[tuple[int, int]]:
        """Prompts and rows that share an n-gram that is no common phrase, or the whole row, sorted."""
        telling = {
            (prompt, row)
            for known in self._ngrams.values()
            if len(known.prompts) <= MAX_PROMPTS and len(known.rows) <= MAX_PROMPTS
            for prompt in known.prompts
            for row in known.rows
        }
        return sorted(telling | self._hits)

    def _add_row(self, row: Words, number: int) -> None:
        ngrams = ngrams_of(row, self._n_words)
        for ngram in dict.fromkeys(ngrams):
            self._ngrams[ngram].rows.append(number)
        self._ngrams[ngrams[0]].wholes.setdefault(len(row), {})[row] = number


def ngrams_of(row: Words, n_words: int) -> list[Words]:
    """All runs of `n_words` words; the row itself where it has fewer."""
    size = min(n_words, len(row))
    return [row[start : start + size] for start in range(len(row) - size + 1)]


def evidence_of(prompt: str, row: str, n_words: int) -> Shared:
    """What a prompt and a row share, in words."""
    own, theirs = tuple(words(prompt)), tuple(words(row))
    if len(theirs) < min(LEAST_WORDS, n_words):
        return Shared(row.strip(), len(theirs), 1.0, is_whole=True)
    wanted = ngrams_of(theirs, n_words)
    size, known = len(wanted[0]), set(wanted)
    is_shared = [own[start : start + size] in known for start in range(len(own) - size + 1)]
    longest = length = run = 0
    for start, shared in enumerate(is_shared):
        run = run + 1 if shared else 0
        if run > length:
            longest, length = start - run + 1, run
    text = own[longest : longest + length + size - 1] if length else ()
    present = {own[start : start + size] for start, shared in enumerate(is_shared) if shared}
    fraction = sum(ngram in present for ngram in wanted) / len(wanted)
    is_whole = any(own[start : start + len(theirs)] == theirs for start in range(len(own) - len(theirs) + 1))
    return Shared(" ".join(text), len(text), fraction, is_whole=is_whole)
