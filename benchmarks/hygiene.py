"""How many planted near-copies are found, and how many different prompts are taken for copies.

    python benchmarks/hygiene.py [--prompts 680] [--every 4] [--min-jaccard 0.8] [--min-similarity 0.95]
    python benchmarks/hygiene.py --gsm8k FOLDER/gsm8k_train.jsonl --prompts 200

Takes the demo's prompts (reasoning-gym tasks of 17 families), or questions of GSM8K, and plants a near-copy of each
kind for every fourth one of a family: a typo in every 60 letters; other punctuation, case and spaces; the first
sentence moved to the end; another name (the demo: one noun of a syllogism or the letter of an unknown; GSM8K: the
persons). Copies keep the reference answer. The fifth kind changes one number: that is NOT the same problem, and finding
it is wrong.

The demo's prompts are filled-in templates: two of a family differ in a few numbers or words, so what matters is how
many of the prompts as generated, all of them different problems, are linked to another one. Some few of them are the
same problem by chance ('2 * 6' and '6 * 2'), and are counted as false alarms all the same.

Features are those of the demo's reader and of an SAE of 4,096 latents, trained on the tokens of these prompts. MinHash
alone, SAE neighbours alone and both together are measured three times: as the product does it, where prompts with other
numbers or other short reference answers are different problems; without the answers; and with neither rule. The last
line is one JSON object: recall by kind for each, `false_alarms` (share of the prompts as generated that are linked to
another of them), `wrong_numbers` (share of the changed numbers that are found), and `folded` (share of the prompts as
generated that folding would leave out).
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import tempfile
import tomllib
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from saerl_assets.domain.feature_pairs import feature_pairs
from saerl_assets.domain.features import ENTRY_COLUMNS, FeatureRows, pool
from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.domain.pairs import connected_groups, problem_keys
from saerl_assets.domain.spec import HygieneSpec, ReaderSpec, SaeSpec
from saerl_assets.domain.text_pairs import text_pairs
from saerl_assets.domain.wording import quantities, tokens
from saerl_assets.models.activations import sink_threshold, without_sinks
from saerl_assets.models.device import TokenBudget, token_budget
from saerl_assets.models.extraction import pool_shard, read_shard
from saerl_assets.models.reader import Reader
from saerl_assets.models.sae_training import train_sae
from saerl_assets.models.saes import load_encoder
from saerl_assets.models.sources import locate_model
from saerl_assets.models.texts import Text, plan_shards
from saerl_assets.models.tokeniser import Tokeniser
from saerl_assets.storage.home import model_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.features import EntryColumn, FloatMatrix
    from saerl_assets.domain.spec import Pooling

TASKS_FILE = Path(__file__).parents[1] / "examples" / "demo" / "tasks.toml"
LAYER, SINK_MULTIPLE, TEXTS_PER_SHARD = 15, 10.0, 256
SAE = SaeSpec(training_tokens=150_000)
KINDS = ("typos", "punctuation", "reordered", "names", "number")
LETTERS_PER_TYPO = 60
NOUNS = ("dolphins", "doctors", "reptiles", "chefs", "lawyers", "mammals", "butterflies", "cats", "tigers", "teachers")
NAMES = ("Oswald", "Petra", "Quentin", "Ramona")
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
    numbers = [found for found in re.finditer(r"\d+", prompt.text) if not re.match(r"\. ", prompt.text[found.end() :])]
    if not numbers:
        return None
    found = rng.choice(numbers)
    number = str(int(found.group()) + rng.randrange(1, 4))
    return prompt.text[: found.start()] + number + prompt.text[found.end() :]


CHANGES: dict[str, Callable[[Prompt, random.Random, set[str]], str | None]] = {
    "typos": with_typos,
    "punctuation": with_punctuation,
    "reordered": reordered,
    "names": renamed,
    "number": with_another_number,
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


def read_features(prompts: Sequence[Prompt], device: str = "cpu") -> Features:
    """Reads the prompts once, trains an SAE on the originals' tokens and pools what it finds in all of them."""
    files = locate_model(ReaderSpec().model, cache=model_cache(), folder=Path())
    ids = Tokeniser.load(files, "plain")([prompt.text for prompt in prompts], [None] * len(prompts))
    texts = [Text(f"{row:032x}", read.token_ids) for row, read in enumerate(ids)]
    n_originals = sum(prompt.kind == "original" for prompt in prompts)
    reader = Reader.load(files, layers=[LAYER], dtype="float32", device=device)
    budget = TokenBudget(token_budget(0, device))
    parts = (texts[:n_originals], texts[n_originals:])
    shards = [plan_shards(part, texts_per_shard=TEXTS_PER_SHARD) for part in parts]
    read = [read_shard(reader, shard, budget=budget) for part in shards for shard in part]
    own = [activations.layers[LAYER] for activations in read[: len(shards[0])]]
    threshold = sink_threshold(own, SINK_MULTIPLE)
    with tempfile.TemporaryDirectory() as place:
        training = without_sinks(own, threshold)
        trained = train_sae(training, SAE, layer=LAYER, seed=0, folder=Path(place), device=device)
        encoder = load_encoder(trained.folder, device)
        tables = [
            pool_shard(activations, shard, {LAYER: encoder}, {LAYER: threshold}, budget=budget).features[LAYER]
            for activations, shard in zip(read, [*shards[0], *shards[1]], strict=True)
        ]
    return Features(_block(pa.concat_tables(tables)), SAE.n_latents)


def _block(table: pa.Table) -> FeatureRows:
    """The rows of texts in the order of their ids."""
    frame = pl.DataFrame(table).sort("text_id")
    lengths = frame["feature_ids"].list.len().to_numpy().astype(np.int64)
    flat = {
        name: frame[name].explode(empty_as_null=False).to_numpy()
        for name in ("feature_ids", "max", "sum", "last", "n_active", "argmax_token")
    }
    return FeatureRows(
        prompt_ids=frame["text_id"].to_list(),
        n_tokens=frame["n_tokens"].to_numpy().astype(np.int64),
        indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        feature_ids=flat["feature_ids"].astype(np.int32),
        maximum=flat["max"].astype(np.float32),
        total=flat["sum"].astype(np.float32),
        last=flat["last"].astype(np.float32),
        n_active=flat["n_active"].astype(np.int32),
        argmax_token=flat["argmax_token"].astype(np.int32),
    )


def measure(prompts: Sequence[Prompt], pairs: pl.DataFrame) -> dict[str, float | None]:
    """Recall by kind, and what is wrong among the originals."""
    n_originals = sum(prompt.kind == "original" for prompt in prompts)
    linked = set(pairs.select("first", "second").iter_rows())
    found: dict[str, float | None] = {}
    for kind in KINDS:
        copies = [(prompt.origin, row) for row, prompt in enumerate(prompts) if prompt.kind == kind]
        share = round(sum(copy in linked for copy in copies) / len(copies), 3) if copies else None
        found["wrong_numbers" if kind == "number" else kind] = share
    own = pairs.filter(pl.col("second") < n_originals)
    touched = np.unique(np.concatenate([own["first"].to_numpy(), own["second"].to_numpy()]))
    n_groups = len(np.unique(connected_groups(own, n_originals)))
    return found | {
        "false_alarms": round(len(touched) / n_originals, 4),
        "folded": round(1 - n_groups / n_originals, 4),
    }


def all_rules(prompts: Sequence[Prompt]) -> dict[str, NDArray[np.int64]]:
    """By rule the problem that each prompt could be."""
    numbers = [quantities(prompt.text) for prompt in prompts]
    answers = [tokens(prompt.answer) or [prompt.answer] for prompt in prompts]
    return {
        "numbers_and_answers": problem_keys(numbers, answers),
        "numbers": problem_keys(numbers, [None] * len(prompts)),
        "no_rule": np.zeros(len(prompts), dtype=np.int64),
    }


def main() -> None:
    """Plants, reads, measures and prints."""
    default = HygieneSpec()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=680)
    parser.add_argument("--every", type=int, default=4, help="plant copies of every so many prompts of a family")
    parser.add_argument("--gsm8k", type=Path, help="gsm8k_train.jsonl: its questions instead of the demo's prompts")
    parser.add_argument("--min-jaccard", type=float, default=default.min_jaccard)
    parser.add_argument("--min-similarity", type=float, default=default.min_similarity)
    parser.add_argument("--pooling", choices=["max", "mean", "binary"], default="max")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    originals = (
        gsm8k_prompts(arguments.gsm8k, arguments.prompts) if arguments.gsm8k else demo_prompts(arguments.prompts)
    )
    prompts = plant(originals, arguments.every)
    planted = Counter(prompt.kind for prompt in prompts)
    print(", ".join(f"{n} {kind}" for kind, n in planted.items()), flush=True)
    features = read_features(prompts)
    print(
        f"\n{'':32}" + "".join(f"{column:>15}" for column in (*KINDS[:-1], "wrong numbers", "false alarms", "folded"))
    )
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    nobody = np.zeros(len(prompts), dtype=np.int64)
    for rule, keys in all_rules(prompts).items():
        by_text = text_pairs([prompt.text for prompt in prompts], keys, min_jaccard=arguments.min_jaccard)
        by_features = feature_pairs(
            features,
            keys,
            nobody,
            nobody.astype(np.float64),
            pooling=arguments.pooling,
            min_similarity=arguments.min_similarity,
        )
        found = {"minhash": by_text.select("first", "second"), "sae": by_features.select("first", "second")}
        found["both"] = pl.concat(found.values()).unique().sort("first", "second")
        result[rule] = {name: measure(prompts, pairs) for name, pairs in found.items()}
        for name, figures in result[rule].items():
            said = "".join(f"{'-' if figure is None else f'{figure:.3f}':>15}" for figure in figures.values())
            print(f"{rule.replace('_', ' '):22}{name:10}{said}")
    settings = {name: getattr(arguments, name) for name in ("min_jaccard", "min_similarity", "pooling")}
    print(f"\n{json.dumps({'planted': planted, **settings, **result})}")


if __name__ == "__main__":
    main()
