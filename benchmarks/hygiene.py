"""How many planted near-copies are found, and how many different prompts are taken for copies.

    python benchmarks/hygiene.py [--prompts 680] [--every 4] [--min-jaccard 0.8] [--min-similarity 0.95 0.98]
    python benchmarks/hygiene.py --gsm8k FOLDER/gsm8k_train.jsonl --prompts 200

Takes the demo's prompts (reasoning-gym tasks of 17 families), or questions of GSM8K, and plants a near-copy of each
kind for every fourth one of a family: a typo in every 60 letters; other punctuation, case and spaces; the first
sentence moved to the end; another name (the demo: one noun of a syllogism or the letter of an unknown; GSM8K: the
persons). Copies keep the reference answer. Three more kinds are NOT the same problem, and finding them is wrong: one
number changed, two numbers swapped, a number word changed ('two' to 'six').

The demo's prompts are filled-in templates: two of a family differ in a few numbers or words, so what matters is how
many of the prompts as generated, all of them different problems, are linked to another one. Some few of them, and of
those with swapped numbers, are the same problem by chance ('2 * 6' and '6 * 2'), and are counted as wrong all the same.

Features are those of the demo's reader and of an SAE of 4,096 latents, trained on tokens of these prompts; the first
run reads them, which takes some minutes, and keeps them below `--cache`. MinHash alone, SAE neighbours alone and both
together are measured with four rules: as the product does it, where prompts with other quantities, the same ones in
other places, or other short reference answers are different problems; without the answers; with the quantities as a
heap, wherever they stand; and with no rule. The last line is one JSON object: recall by kind for each, the shares
`wrong_number`, `wrong_operands` and `wrong_number_word` of the other problems that are found, `false_alarms` (share of
the prompts as generated that are linked to another of them), and `folded` (share of them that folding would leave out).
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import random
import re
import tomllib
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from reading import Request, read_texts

from saerl_assets.domain.alignment import agreeing
from saerl_assets.domain.feature_pairs import feature_pairs
from saerl_assets.domain.features import ENTRY_COLUMNS, FeatureRows, pool
from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.domain.pairs import connected_groups, problem_keys
from saerl_assets.domain.quantities import quantities
from saerl_assets.domain.spec import HygieneSpec, SaeSpec
from saerl_assets.domain.text_pairs import text_pairs
from saerl_assets.domain.wording import tokens
from saerl_assets.storage.home import model_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.features import EntryColumn, FloatMatrix
    from saerl_assets.domain.spec import Pooling

TASKS_FILE = Path(__file__).parents[1] / "examples" / "demo" / "tasks.toml"
LAYER = 15
SAE = SaeSpec(training_tokens=150_000)
COPIES = ("typos", "punctuation", "reordered", "names")
OTHERS = ("number", "operands", "number_word")
"""Kinds that are other problems."""
LETTERS_PER_TYPO = 60
NOUNS = ("dolphins", "doctors", "reptiles", "chefs", "lawyers", "mammals", "butterflies", "cats", "tigers", "teachers")
NAMES = ("Oswald", "Petra", "Quentin", "Ramona")
NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(NUMBER_WORDS)})\b")
_SENTENCE_END = re.compile(r"(?<=[.?!:])\s+|\n+")


@dataclass(frozen=True)
class Prompt:
    """One prompt; `kind` is `original` or what was changed, `origin` the row that it is a copy of."""

    text: str
    family: str
    answer: str
    kind: str = "original"
    origin: int = -1


def demo_prompts(n_prompts: int) -> list[Prompt]:
    """The demo's prompts, the instruction that they all end in left out, as the product does."""
    document = tomllib.loads(TASKS_FILE.read_text())
    mix = parse_tasks(document).model_copy(update={"n_rows": n_prompts})
    return [
        Prompt(str(row["prompt"]).removesuffix(mix.suffix).strip(), str(row["family"]), str(row["answer"]))
        for row in generate_rows(mix)
    ]


def gsm8k_prompts(file: Path, n_prompts: int) -> list[Prompt]:
    """The first questions of GSM8K with their final answers."""
    with file.open() as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(n_prompts), strict=False)]
    return [Prompt(row["question"], "gsm8k", row["answer"].rpartition("####")[2].strip()) for row in rows]


def plant(originals: Sequence[Prompt], every: int) -> list[Prompt]:
    """The prompts, and after them one near-copy of each kind of every so many of a family."""
    rng = random.Random(0)  # noqa: S311 - copies, not secrets
    counts = Counter(word for prompt in originals for word in set(re.findall(r"[a-z]+", prompt.text.lower())))
    common = {word for word, n in counts.items() if n >= 3}
    seen: Counter[str] = Counter()
    copies = []
    for origin, prompt in enumerate(originals):
        seen[prompt.family] += 1
        if (seen[prompt.family] - 1) % every:
            continue
        for kind, change in CHANGES.items():
            text = change(prompt, rng, common)
            if text and text != prompt.text:
                copies.append(Prompt(text, prompt.family, prompt.answer, kind, origin))
    return [*originals, *copies]


def with_typos(prompt: Prompt, rng: random.Random, common: set[str]) -> str | None:
    """Letters swapped, left out or doubled in words that other prompts have too: those that vary may be the problem."""
    words = [word for word in re.finditer(r"[A-Za-z]{4,}", prompt.text) if word.group().lower() in common]
    chosen = rng.sample(words, min(max(1, len(prompt.text) // LETTERS_PER_TYPO), len(words)))
    text = prompt.text
    for found in sorted(chosen, key=lambda word: -word.start()):
        word, at = found.group(), rng.randrange(1, len(found.group()) - 1)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        typed = rng.choice([swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]])
        text = text[: found.start()] + typed + text[found.end() :]
    return text


def with_punctuation(prompt: Prompt, rng: random.Random, _common: set[str]) -> str | None:
    """Other quotes, no colons and question marks, line breaks as spaces, a small letter first, another end."""
    text = prompt.text[:1].lower() + prompt.text[1:]
    text = text.replace('"', "'").replace("?", "").replace(":", "").replace("\n", "  ").rstrip(".")
    return text + rng.choice(["!", " ...", " ?", " "])


def reordered(prompt: Prompt, _rng: random.Random, _common: set[str]) -> str | None:
    """The first sentence moved to the end; none where there is only one."""
    parts = [part for part in _SENTENCE_END.split(prompt.text) if part.strip()]
    return " ".join([*parts[1:], parts[0]]) if len(parts) > 1 else None


def renamed(prompt: Prompt, rng: random.Random, common: set[str]) -> str | None:
    """Another name in every place; none where the prompt names nothing."""
    if prompt.family == "syllogism" and (found := re.search(r"1\. (?:All|No|Some) (\w+)", prompt.text)):
        noun = rng.choice([noun for noun in NOUNS if noun not in prompt.text])
        return re.sub(rf"\b{found.group(1)}\b", noun, prompt.text, flags=re.IGNORECASE)
    if prompt.family == "simple_equations" and (found := re.search(r"\d\*([a-z])\b", prompt.text)):
        letter = rng.choice([letter for letter in "abcdghjkmnpqrstuvwxyz" if letter != found.group(1)])
        return re.sub(rf"(?<![A-Za-z]){found.group(1)}(?![A-Za-z])", letter, prompt.text)
    if prompt.family == "gsm8k":
        text = prompt.text
        names = re.findall(r"(?<![.?!] )(?<!^)\b[A-Z][a-z]{2,}\b", text)
        for old, new in zip(dict.fromkeys(name for name in names if name.lower() not in common), NAMES, strict=False):
            text = re.sub(rf"\b{old}\b", new, text)
        return text
    return None


def with_another_number(prompt: Prompt, rng: random.Random, _common: set[str]) -> str | None:
    """One number a little larger, those of numbered lines left alone: another problem."""
    numbers = _numbers(prompt.text)
    if not numbers:
        return None
    found = rng.choice(numbers)
    number = str(int(found.group()) + rng.randrange(1, 4))
    return prompt.text[: found.start()] + number + prompt.text[found.end() :]


def with_swapped_numbers(prompt: Prompt, rng: random.Random, _common: set[str]) -> str | None:
    """Two different numbers in each other's places: another problem, but for a sum's terms and the like."""
    text = prompt.text
    pairs = [
        (one, other)
        for one, other in itertools.combinations(_numbers(text), 2)
        if int(one.group()) != int(other.group())
    ]
    if not pairs:
        return None
    one, other = rng.choice(pairs)
    between = text[one.end() : other.start()]
    return text[: one.start()] + other.group() + between + one.group() + text[other.end() :]


def with_another_number_word(prompt: Prompt, rng: random.Random, _common: set[str]) -> str | None:
    """One number that is written as a word replaced by another: another problem."""
    found = list(_NUMBER_WORD.finditer(prompt.text))
    if not found:
        return None
    old = rng.choice(found)
    new = rng.choice([word for word in NUMBER_WORDS if word != old.group()])
    return prompt.text[: old.start()] + new + prompt.text[old.end() :]


def _numbers(text: str) -> list[re.Match[str]]:
    """The numbers of a text but for those of numbered lines."""
    return [found for found in re.finditer(r"\d+", text) if not re.match(r"\. ", text[found.end() :])]


CHANGES: dict[str, Callable[[Prompt, random.Random, set[str]], str | None]] = {
    "typos": with_typos,
    "punctuation": with_punctuation,
    "reordered": reordered,
    "names": renamed,
    "number": with_another_number,
    "operands": with_swapped_numbers,
    "number_word": with_another_number_word,
}


@dataclass(frozen=True)
class Features:
    """The features of the prompts, in their order."""

    block: FeatureRows
    n_features: int

    @property
    def prompt_ids(self) -> list[str]:
        """Names of the prompts."""
        return self.block.prompt_ids

    def csr(self, pooling: Pooling, rows: NDArray[np.int64] | None = None) -> FloatMatrix:
        """See `FeatureSet.csr`."""
        matrix = pool(self.block, pooling, self.n_features)
        return matrix if rows is None else matrix[rows]

    def blocks(self, pooling: Pooling) -> Iterator[tuple[int, FloatMatrix]]:
        """See `FeatureSet.blocks`."""
        yield 0, self.csr(pooling)

    def activations(self, columns: Sequence[EntryColumn] = ENTRY_COLUMNS) -> Iterator[FeatureRows]:  # noqa: ARG002
        """See `FeatureSet.activations`; all columns are there."""
        yield self.block


def read_features(prompts: Sequence[Prompt], cache: Path) -> Features:
    """Features of the prompts, read once and kept below the cache."""
    texts = [prompt.text for prompt in prompts]
    views, _ = read_texts(Request(texts, [None] * len(texts), layers=[LAYER], sae=SAE), cache)
    rows = views[LAYER, "prompt"]
    return Features(rows.features, rows.n_latents)


def measure(prompts: Sequence[Prompt], pairs: pl.DataFrame) -> dict[str, float | None]:
    """Recall by kind, and what is wrong among the originals."""
    n_originals = sum(prompt.kind == "original" for prompt in prompts)
    linked = set(pairs.select("first", "second").iter_rows())
    found: dict[str, float | None] = {}
    for kind in (*COPIES, *OTHERS):
        planted = [(prompt.origin, row) for row, prompt in enumerate(prompts) if prompt.kind == kind]
        share = round(sum(pair in linked for pair in planted) / len(planted), 3) if planted else None
        found[f"wrong_{kind}" if kind in OTHERS else kind] = share
    own = pairs.filter(pl.col("second") < n_originals)
    touched = np.unique(np.concatenate([own["first"].to_numpy(), own["second"].to_numpy()]))
    n_groups = len(np.unique(connected_groups(own, n_originals)))
    return found | {
        "false_alarms": round(len(touched) / n_originals, 4),
        "folded": round(1 - n_groups / n_originals, 4),
    }


@dataclass(frozen=True)
class Rule:
    """When two prompts could be the same problem."""

    keys: NDArray[np.int64]
    """The problem that each prompt could be."""
    is_ordered: bool
    """And their quantities must be in the same places."""


def all_rules(prompts: Sequence[Prompt]) -> dict[str, Rule]:
    """The product's rule, and what is left of it piece by piece."""
    numbers = [quantities(prompt.text) for prompt in prompts]
    answers = [tokens(prompt.answer) or [prompt.answer] for prompt in prompts]
    unanswered = problem_keys(numbers, [None] * len(prompts))
    return {
        "the product's": Rule(problem_keys(numbers, answers), is_ordered=True),
        "without answers": Rule(unanswered, is_ordered=True),
        "in any place": Rule(unanswered, is_ordered=False),
        "no rule": Rule(np.zeros(len(prompts), dtype=np.int64), is_ordered=False),
    }


def find_pairs(
    prompts: Sequence[Prompt],
    features: Features,
    rule: Rule,
    min_jaccard: float,
    min_similarity: float,
    pooling: Pooling,
) -> dict[str, pl.DataFrame]:
    """Pairs of rows by text, by features and by either."""
    texts, nobody = [prompt.text for prompt in prompts], np.zeros(len(prompts), dtype=np.int64)
    by_text = text_pairs(texts, rule.keys, min_jaccard=min_jaccard)
    by_features = feature_pairs(
        features, rule.keys, nobody, nobody.astype(np.float64), pooling=pooling, min_similarity=min_similarity
    )
    found = {"MinHash": by_text.select("first", "second"), "SAE": by_features.select("first", "second")}
    if rule.is_ordered:
        found = {name: pairs.filter(agreeing(texts, pairs)) for name, pairs in found.items()}
    return found | {"both": pl.concat(found.values()).unique().sort("first", "second")}


def main() -> None:
    """Plants, reads, measures and prints."""
    default = HygieneSpec()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=680)
    parser.add_argument("--every", type=int, default=4, help="plant copies of every so many prompts of a family")
    parser.add_argument("--gsm8k", type=Path, help="gsm8k_train.jsonl: its questions instead of the demo's prompts")
    parser.add_argument("--min-jaccard", type=float, nargs="+", default=[default.min_jaccard])
    parser.add_argument("--min-similarity", type=float, nargs="+", default=[default.min_similarity])
    parser.add_argument("--pooling", choices=["max", "mean", "binary"], default="max")
    parser.add_argument("--cache", type=Path, default=model_cache() / "benchmarks")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    originals = (
        gsm8k_prompts(arguments.gsm8k, arguments.prompts) if arguments.gsm8k else demo_prompts(arguments.prompts)
    )
    prompts = plant(originals, arguments.every)
    planted = Counter(prompt.kind for prompt in prompts)
    print(", ".join(f"{n} {kind}" for kind, n in planted.items()), flush=True)
    features, rules = read_features(prompts, arguments.cache), all_rules(prompts)
    columns = (*COPIES, *(f"wrong {kind}".replace("_", " ") for kind in OTHERS), "false alarms", "folded")
    results = []
    for min_jaccard, min_similarity in itertools.product(arguments.min_jaccard, arguments.min_similarity):
        print(f"\ntext overlap at least {min_jaccard:g}, feature cosine at least {min_similarity:g}")
        print(f"{'':26}" + "".join(f"{column:>18}" for column in columns))
        result: dict[str, dict[str, dict[str, float | None]]] = {}
        for name, rule in rules.items():
            found = find_pairs(prompts, features, rule, min_jaccard, min_similarity, arguments.pooling)
            result[name] = {by: measure(prompts, pairs) for by, pairs in found.items()}
            for by, figures in result[name].items():
                said = "".join(f"{'-' if figure is None else f'{figure:.3f}':>18}" for figure in figures.values())
                print(f"{name:18}{by:8}{said}", flush=True)
        results.append({"min_jaccard": min_jaccard, "min_similarity": min_similarity, **result})
    print(f"\n{json.dumps({'planted': planted, 'pooling': arguments.pooling, 'results': results})}")


if __name__ == "__main__":
    main()
