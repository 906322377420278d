"""Text that prompts share at their start or end, left out when they are read.

Belongs here: finding and stripping it. Does not belong here: what exports hold; they keep it.
"""

from __future__ import annotations

from dataclasses import dataclass

from saerl_assets.domain.messages import canonical_text

AUTO = "auto"

MIN_AFFIX_CHARACTERS = 12
"""A shorter common text is taken for chance."""


@dataclass(frozen=True)
class Affixes:
    """What is left out at either end."""

    prefix: str = ""
    suffix: str = ""

    def strip(self, text: str) -> str:
        """The text without either affix; an affix that it lacks, or that is all there is of it, stays."""
        if self.suffix and text.endswith(self.suffix):
            text = text[: -len(self.suffix)].rstrip() or text
        if self.prefix and text.startswith(self.prefix):
            text = text[len(self.prefix) :].lstrip() or text
        return text

    def lacks_prefix(self, text: str) -> bool:
        """Whether there is a prefix to strip and the text does not start with it, or is nothing more."""
        return bool(self.prefix) and (not text.startswith(self.prefix) or len(text) == len(self.prefix))

    def lacks_suffix(self, text: str) -> bool:
        """Whether there is a suffix to strip and the text does not end in it, or is nothing more."""
        return bool(self.suffix) and (not text.endswith(self.suffix) or len(text) == len(self.suffix))


class CommonSuffix:
    """The longest text that all texts end in, found in one pass without keeping them."""

    def __init__(self) -> None:
        self._suffix = ""
        self._shortest = 0
        self._n_texts = 0
        self._follows_space = True  # in every text so far, what precedes the suffix is white space or the start

    def add(self, text: str) -> None:
        """Takes one more text, without white space around it."""
        if self._n_texts == 0:
            self._suffix, self._shortest = text, len(text)
        elif not text.endswith(self._suffix):
            shared = _shared_end(self._suffix, text)
            # All texts so far end in the old suffix: before the new one they hold the same character.
            self._follows_space = self._suffix[-shared - 1].isspace()
            self._suffix = self._suffix[len(self._suffix) - shared :]
        self._n_texts += 1
        self._shortest = min(self._shortest, len(text))
        before = len(text) - len(self._suffix) - 1
        if before >= 0:
            self._follows_space = self._follows_space and text[before].isspace()

    def found(self) -> str:
        """The suffix from a word boundary on; empty if it is under 12 characters or the whole of a text."""
        suffix = self._suffix
        if suffix and not self._follows_space:
            start = next((place for place, character in enumerate(suffix) if character.isspace()), len(suffix))
            suffix = suffix[start:]
        if self._n_texts < 2 or len(suffix.strip()) < MIN_AFFIX_CHARACTERS or self._shortest <= len(suffix):
            return ""
        return suffix


class AffixFinder:
    """The affixes that a spec asks for: literal, found, or none."""

    def __init__(self, prefix: str, suffix: str) -> None:
        self._prefix, self._suffix = prefix, suffix
        self._starts = CommonSuffix() if prefix == AUTO else None
        self._ends = CommonSuffix() if suffix == AUTO else None

    def add(self, text: str) -> None:
        """Takes the canonical text of one more distinct prompt."""
        if self._ends:
            self._ends.add(text)
        if self._starts:
            self._starts.add(text[::-1])

    def found(self) -> Affixes:
        """What to strip. A literal affix is brought into the canonical form of the texts."""
        return Affixes(
            prefix=self._starts.found()[::-1] if self._starts else _literal(self._prefix).lstrip(),
            suffix=self._ends.found() if self._ends else _literal(self._suffix).rstrip(),
        )


def _literal(text: str) -> str:
    """Canonical, but with the white space around it."""
    bare = canonical_text(text)
    start = len(text) - len(text.lstrip())
    end = len(text.rstrip())
    return text[:start].replace("\r\n", "\n") + bare + text[end:].replace("\r\n", "\n") if bare else ""


def _shared_end(left: str, right: str) -> int:
    """Number of characters that both end in."""
    n_most = min(len(left), len(right))
    for n_shared in range(n_most):
        if left[-n_shared - 1] != right[-n_shared - 1]:
            return n_shared
    return n_most
