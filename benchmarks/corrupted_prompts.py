"""The demo's prompts, a tenth of them spoilt in one of five ways.

Belongs here: the prompts and what is done to some. Does not belong here: finding the spoilt ones (corruption).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.affixes import Affixes
from saerl_assets.domain.gym import generate_rows, parse_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TASKS = Path(__file__).parents[1] / "examples" / "demo" / "tasks.toml"
WORDS = Path(__file__).parent / "corruption_words.tsv"

KEPT_FRACTIONS = (0.3, 0.7)
"""How much a truncated prompt keeps, drawn evenly."""
MIN_KNOWN_FRACTION = 0.6
"""Prompts with fewer words in the list of words do not become those of another language."""
MIN_WORDS_SHUFFLED = 3
"""Prompts with fewer words, numbers aside, are not shuffled: another order of a few numbers is another task."""
LEAKS = ("{body}\nThe answer is {answer}.", "{body} (Answer: {answer})", "Hint: {answer}\n{body}", "{body}\n{answer}")
LANGUAGES = ("german", "spanish")


@dataclass(frozen=True)
class Source:
    """A prompt before it is spoilt."""

    body: str
    """Without the instruction that all prompts share, which a version does not read either."""
    answer: str
    family: str


@dataclass(frozen=True)
class Prompts:
    """Prompts as they are read, and what was done to each."""

    texts: list[str]
    kinds: NDArray[np.str_]
    """[n], `` for a prompt as it was."""

    @property
    def is_corrupted(self) -> NDArray[np.bool_]:
        """Of each prompt, bool [n]."""
        return np.asarray(self.kinds != "", dtype=bool)


def corrupted_prompts(n: int, fraction: float, *, tasks_seed: int | None = None, seed: int = 0) -> Prompts:
    """The first `n` of the demo's prompts, of which a share is spoilt, every kind as often.

    Args:
        n: Number of prompts.
        fraction: Share that is spoilt.
        tasks_seed: Other tasks of the same kinds; None for the demo's own.
        seed: Of which prompts are spoilt, and how.
    """
    sources = demo_sources(n, tasks_seed)
    rng = np.random.default_rng(seed)
    texts, kinds = [source.body for source in sources], np.full(n, "", dtype="<U16")
    left = rng.permutation(n).tolist()
    names = list(KINDS)
    for number in range(round(fraction * n)):
        name = names[number % len(names)]
        # a prompt of digits alone has no words to shuffle or to translate: it waits for another kind
        for place, row in enumerate(left):
            spoilt = KINDS[name](sources[row], sources, rng)
            if spoilt is not None:
                texts[row], kinds[row] = spoilt, name
                del left[place]
                break
    return Prompts(texts, kinds)


def demo_sources(n: int, tasks_seed: int | None) -> list[Source]:
    """The first rows of the demo's dataset, or of one of the same kinds."""
    mix = parse_tasks(tomllib.loads(TASKS.read_text()))
    mix = mix.model_copy(update={"n_rows": n} | ({} if tasks_seed is None else {"seed": tasks_seed}))
    strip = Affixes(suffix=mix.suffix).strip
    return [Source(strip(str(row["prompt"])), str(row["answer"]), str(row["family"])) for row in generate_rows(mix)]


def truncated(source: Source, _: list[Source], rng: np.random.Generator) -> str | None:
    """Only the beginning, up to the end of a word."""
    words = re.findall(r"\s*\S+", source.body)
    n_kept = max(round(len(words) * rng.uniform(*KEPT_FRACTIONS)), 1)
    return "".join(words[:n_kept]) if n_kept < len(words) else None


def shuffled(source: Source, _: list[Source], rng: np.random.Generator) -> str | None:
    """The same words in another order; spaces and line breaks stay where they are."""
    parts = re.split(r"(\s+)", source.body)
    words = parts[::2]
    if sum(word.isalpha() for word in words) < MIN_WORDS_SHUFFLED:
        return None
    parts[::2] = [words[place] for place in rng.permutation(len(words))]
    found = "".join(parts)
    return found if found != source.body else None


def wrong_language(source: Source, _: list[Source], rng: np.random.Generator) -> str | None:
    """Word for word in German or Spanish; numbers, names and signs stay."""
    table = _translations()[LANGUAGES[rng.integers(len(LANGUAGES))]]
    words = re.findall(r"[A-Za-z]{2,}", source.body)
    n_known = sum(word.lower() in table for word in words)
    if not words or n_known < MIN_KNOWN_FRACTION * len(words):
        return None

    def translated(match: re.Match[str]) -> str:
        word = match.group()
        found = table.get(word.lower(), word)
        return found[0].upper() + found[1:] if word[0].isupper() else found

    return re.sub(r"[A-Za-z]{2,}", translated, source.body)


def answer_leaked(source: Source, _: list[Source], rng: np.random.Generator) -> str | None:
    """The reference answer before or after the task, in one of a few wordings."""
    return LEAKS[rng.integers(len(LEAKS))].format(body=source.body, answer=source.answer)


def joined(source: Source, sources: list[Source], rng: np.random.Generator) -> str | None:
    """A task of another family right behind it."""
    others = [other for other in sources if other.family != source.family]
    return f"{source.body}{(' ', chr(10))[rng.integers(2)]}{others[rng.integers(len(others))].body}" if others else None


KINDS: dict[str, Callable[[Source, list[Source], np.random.Generator], str | None]] = {
    "truncated": truncated,
    "shuffled": shuffled,
    "wrong_language": wrong_language,
    "answer_leaked": answer_leaked,
    "joined": joined,
}


@cache
def _translations() -> dict[str, dict[str, str]]:
    table = pl.read_csv(WORDS, separator="\t")
    return {name: dict(zip(table["english"], table[name], strict=True)) for name in LANGUAGES}
