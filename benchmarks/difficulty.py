"""How well difficulty is foretold on real competition mathematics, by SAE features and by what a sceptic would use.

    python benchmarks/difficulty.py --data FOLDER [--layers 5 10 15 20 25] [--limit N] [--cache FOLDER] [--skip-search]

FOLDER (or SAERL_REFERENCE_DATA) holds `deepscaler_passrate.parquet`: 7,601 distinct prompts of DeepScaleR, and the
percentage of failures of Qwen2.5-Math-7B over 128 rollouts as their difficulty (repeats averaged). The demo's model
reads each prompt without the instruction that all of them share, and then its reference answer, which every prompt of
RL with verifiable rewards has: in a causal model the prompt's tokens do not see it, so one pass serves both.

Every side is a ridge regression on a sum of kernels of equal weight, and is tuned in the same way: all combinations
listed below and every penalty are tried on 80% of the prompts, by hash, with five-fold cross-validation; then the best
one once more with a Gaussian kernel of the same distances beside it ("and curved"). Then the best of each side is
fitted to these 80% and scored once on the other 20%. The table of all that was tried is
printed. Intervals are percentiles of a paired bootstrap over the held-out prompts. With 1,000 labels: the mean over
disjoint subsets of 1,000 of the 80%, each with the penalty of the least cross-validation error within it.

Last comes what a version learns by itself with `reader.layers` as here, `difficulty.pooling = ["max", "sqrt_mean",
"last"]` and its default regressor, on the same 80%; `--skip-search` measures this alone.

The first run reads 700,000 tokens and trains an SAE for each layer: about forty minutes on two idle cores. What was
read is kept below `--cache`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
import torch
from reading import Request, Rows, View, read_texts
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from saerl_assets.domain.agreement import spearman
from saerl_assets.domain.ridge import fit_ridge
from saerl_assets.domain.spec import SaeSpec
from saerl_assets.storage.home import model_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.spec import Pooling

    Doubles: TypeAlias = NDArray[np.float64]
    Floats: TypeAlias = NDArray[np.float32]
    Integers: TypeAlias = NDArray[np.int64]
    Matrix: TypeAlias = sparse.csr_matrix[np.float32] | Floats

INSTRUCTION = " Let's think step by step and output the final answer within \\boxed{}."
DEVELOPMENT_FRACTION = 0.8
N_FOLDS = 5
PENALTIES = (1.0, 3.0, 10.0, 30.0)
"""In units of the kernel's mean diagonal, which is 1. The best ones lie inside."""
FEW_LABELS = 1_000
FEW_PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
N_BOOTSTRAP = 2_000
MIN_ACTIVE = 3


@dataclass(frozen=True)
class Problems:
    """The distinct prompts: text, reference answer, difficulty from 0 to 100."""

    prompts: list[str]
    answers: list[str]
    difficulty: Doubles


def load_problems(folder: Path, limit: int | None) -> Problems:
    """The distinct prompts of the file, in its order; the label of repeats is their mean."""
    frame = pl.read_parquet(folder / "deepscaler_passrate.parquet").select(
        prompt=pl.col("prompt").list.first().struct.field("content").str.strip_suffix(INSTRUCTION),
        answer=pl.col("reward_model").struct.field("ground_truth"),
        difficulty=pl.col("extra_info").struct.field("difficulty").cast(pl.Float64),
    )
    distinct = frame.group_by("prompt", maintain_order=True).agg(pl.col("answer").first(), pl.col("difficulty").mean())
    distinct = distinct.head(limit or distinct.height)
    return Problems(distinct["prompt"].to_list(), distinct["answer"].to_list(), distinct["difficulty"].to_numpy())


def hash_fractions(prompts: Sequence[str], purpose: str) -> Doubles:
    """A fraction for each prompt, float64 [n], that depends on nothing but its text and the purpose."""
    digests = [hashlib.sha256(f"{purpose}:{prompt}".encode()).digest()[:8] for prompt in prompts]
    return np.array([int.from_bytes(digest, "little") / 2.0**64 for digest in digests])


def kernel(matrix: Matrix, *, scaled: bool = True) -> Floats:
    """Linear kernel, centred, with a mean diagonal of 1: float32 [n, n].

    `scaled`: columns brought to variance 1; those that fewer than `MIN_ACTIVE` rows fill are left out. The columns'
    variance is that of all prompts, which takes no label.
    """
    if sparse.issparse(matrix):
        rows = sparse.csr_matrix(matrix, dtype=np.float32)
        if scaled:
            mean = np.asarray(rows.mean(axis=0), dtype=np.float64).ravel()
            square = np.asarray(rows.multiply(rows).mean(axis=0), dtype=np.float64).ravel()
            n_active = np.bincount(rows.indices, minlength=rows.shape[1])
            rows = sparse.csr_matrix(rows @ sparse.diags_array(_inverse(square - mean**2, n_active >= MIN_ACTIVE)))
        product = np.asarray((rows @ rows.T).toarray(), dtype=np.float32)
    else:
        dense = np.asarray(matrix, dtype=np.float32)
        if scaled:
            dense = (dense - dense.mean(axis=0)) * _inverse(dense.var(axis=0), np.ones(dense.shape[1], dtype=bool))
        product = dense @ dense.T
    means = product.mean(axis=0)
    product = product - means - means[:, None] + means.mean()
    return np.asarray(product / (np.trace(product) / len(product)), dtype=np.float32)


def _inverse(variance: NDArray[np.floating], usable: NDArray[np.bool_]) -> Floats:
    is_known = usable & (variance > 1e-10)
    inverse = np.zeros(len(variance), dtype=np.float32)
    inverse[is_known] = 1.0 / np.sqrt(variance[is_known])
    return inverse


def foretell(product: Floats, goal: Doubles, train: Integers, test: Integers, penalties: Sequence[float]) -> Floats:
    """Ridge predictions of the test rows for each penalty: float32 [n_penalties, n_test]."""
    inner, outer = product[np.ix_(train, train)], product[np.ix_(test, train)]
    means = inner.mean(axis=0)
    total = means.mean()
    among = torch.from_numpy(inner - means - means[:, None] + total)
    centred = torch.from_numpy(outer - means - outer.mean(axis=1)[:, None] + total)
    middle = goal[train].mean()
    wanted = torch.from_numpy((goal[train] - middle).astype(np.float32))[:, None]
    found = []
    for penalty in penalties:
        ridged = among.clone()
        ridged.diagonal().add_(penalty)
        weights = torch.cholesky_solve(wanted, torch.linalg.cholesky(ridged))
        found.append((centred @ weights)[:, 0].numpy() + np.float32(middle))
    return np.stack(found)


@dataclass(frozen=True)
class Tried:
    """A combination of kernels and what it is worth on the development prompts."""

    parts: tuple[str, ...]
    is_curved: bool
    penalty: float
    value: float


class Trial:
    """All sides on the same prompts, folds and held-out prompts.

    Args:
        problems: The prompts.
    """

    def __init__(self, problems: Problems) -> None:
        self._goal = problems.difficulty
        is_development = hash_fractions(problems.prompts, "held out") < DEVELOPMENT_FRACTION
        self.development, self.held_out = np.flatnonzero(is_development), np.flatnonzero(~is_development)
        self._folds = (hash_fractions(problems.prompts, "fold") * N_FOLDS).astype(np.int64)
        self._order = np.argsort(hash_fractions(problems.prompts, "subset"), kind="stable")

    def cross_validate(self, product: Floats) -> tuple[float, float]:
        """The best penalty, and at it Spearman within folds, averaged by size; development prompts alone."""
        values = np.zeros(len(PENALTIES))
        for fold in range(N_FOLDS):
            test = self.development[self._folds[self.development] == fold]
            train = self.development[self._folds[self.development] != fold]
            scores = foretell(product, self._goal, train, test, PENALTIES).astype(np.float64)
            ranked = np.array([spearman(score, self._goal[test]) or 0.0 for score in scores])
            values += ranked * len(test) / len(self.development)
        best = int(values.argmax())
        return PENALTIES[best], float(values[best])

    def try_out(self, kernels: Mapping[str, Floats], side: str, parts: tuple[str, ...], *, is_curved: bool) -> Tried:
        """Cross-validates a combination and prints what came out."""
        product = mean_of(kernels, parts)
        penalty, value = self.cross_validate(curved(product) if is_curved else product)
        print(f"{side:11}{value:7.3f}  penalty {penalty:4g}  {shortened(parts)}{' and curved' * is_curved}", flush=True)
        return Tried(parts, is_curved, penalty, value)

    def open(self, product: Floats, penalty: float) -> Doubles:
        """Predictions for the held-out prompts, learned from all development prompts: float64 [n_held_out]."""
        found = foretell(product, self._goal, self.development, self.held_out, [penalty])
        return np.asarray(found[0], dtype=np.float64)

    def with_few_labels(self, product: Floats) -> list[float]:
        """Held-out Spearman of fits to disjoint subsets of `FEW_LABELS` development prompts."""
        ordered = self._order[np.isin(self._order, self.development)]
        subsets = [ordered[start:][:FEW_LABELS] for start in range(0, len(ordered) - FEW_LABELS + 1, FEW_LABELS)]
        goal, found = self._goal[self.held_out], []
        for subset in subsets:
            error = np.zeros(len(FEW_PENALTIES))
            for fold in range(N_FOLDS):
                is_test = self._folds[subset] == fold
                scores = foretell(product, self._goal, subset[~is_test], subset[is_test], FEW_PENALTIES)
                error += np.square(scores - self._goal[subset[is_test]]).sum(axis=1)
            penalty = FEW_PENALTIES[int(error.argmin())]
            score = foretell(product, self._goal, subset, self.held_out, [penalty])[0]
            found.append(spearman(score.astype(np.float64), goal) or 0.0)
        return found

    def measure(self, score: Doubles) -> float:
        """Spearman with the difficulty of the held-out prompts."""
        return spearman(score, self._goal[self.held_out]) or 0.0

    def draws(self, score: Doubles) -> Doubles:
        """The same on bootstrap samples, the same ones for every score: float64 [N_BOOTSTRAP]."""
        rng, goal = np.random.default_rng(0), self._goal[self.held_out]
        samples = [rng.integers(0, len(goal), len(goal)) for _ in range(N_BOOTSTRAP)]
        return np.array([spearman(score[rows], goal[rows]) or 0.0 for rows in samples])


def mean_of(kernels: Mapping[str, Floats], parts: Sequence[str]) -> Floats:
    """The mean of some kernels."""
    total = np.zeros_like(kernels[parts[0]])
    for part in parts:
        total += kernels[part]
    return np.asarray(total / np.float32(len(parts)))


def curved(product: Floats) -> Floats:
    """The mean of a linear kernel and of a Gaussian one as wide as the median squared distance."""
    diagonal = np.diagonal(product)
    distance = diagonal[:, None] + diagonal - 2.0 * product
    near = np.exp(-distance / np.median(distance)).astype(np.float32)
    means = near.mean(axis=0)
    near = near - means - means[:, None] + means.mean()
    return np.asarray((product + near / (np.trace(near) / len(near))) / 2.0, dtype=np.float32)


def feature_kernels(views: Mapping[View, Rows], layers: Sequence[int], *, random: bool) -> dict[str, Floats]:
    """Kernels of the SAEs, or of those of random weights: one for each scope, pooling and layer."""
    found: dict[str, Floats] = {}
    for layer in layers:
        for scope in ("prompt", "response"):
            rows = views[layer, scope]
            found[f"{scope} max {layer}"] = kernel(rows.csr("max", random=random))
            found[f"{scope} sqrt(mean) {layer}"] = kernel(rows.csr("sqrt_mean", random=random))
        found[f"prompt last {layer}"] = kernel(views[layer, "prompt"].csr("last", random=random))
    return found


def state_kernels(views: Mapping[View, Rows], layers: Sequence[int]) -> dict[str, Floats]:
    """Kernels of the dense states."""
    found: dict[str, Floats] = {}
    for layer in layers:
        for scope in ("prompt", "response"):
            found[f"{scope} mean {layer}"] = kernel(views[layer, scope].mean)
            found[f"{scope} last {layer}"] = kernel(views[layer, scope].last)
    return found


def word_kernels(problems: Problems) -> dict[str, Floats]:
    """Kernels of words and of letters."""
    marks = r"\w+|[^\w\s]"
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=marks)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2, max_features=200_000)
    answer = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True)
    return {
        "words": kernel(words.fit_transform(problems.prompts), scaled=False),
        "letters": kernel(letters.fit_transform(problems.prompts), scaled=False),
        "answer's letters": kernel(answer.fit_transform(problems.answers), scaled=False),
    }


def length_kernels(views: Mapping[View, Rows], layer: int) -> dict[str, Floats]:
    """Kernels of the number of tokens and its logarithm."""
    found: dict[str, Floats] = {}
    for scope in ("prompt", "response"):
        length = views[layer, scope].features.n_tokens.astype(np.float64)
        found[scope] = kernel(np.stack([length, np.log1p(length)], axis=1).astype(np.float32))
    return found


def combinations(kernels: Mapping[str, Floats], side: str, layers: Sequence[int]) -> list[tuple[str, ...]]:
    """What is tried of a side, the same for the SAE, the random SAE and the dense states."""
    names = list(kernels)
    if side in ("tfidf", "length"):
        single = [(name,) for name in names]
        return [*single, *[tuple(names[:size]) for size in range(2, len(names) + 1)]]
    of_prompt = [name for name in names if name.startswith("prompt")]
    pooled = [name for name in of_prompt if "last" not in name]
    of_answer = [name for name in names if name.startswith("response") and "last" not in name]
    by_layer = [tuple(name for name in pooled if name.endswith(f" {layer}")) for layer in layers]
    middle = [(name,) for name in of_prompt if name.endswith(f" {layers[len(layers) // 2]}")]
    tried = [*middle, *by_layer, tuple(pooled), tuple(of_prompt), (*pooled, *of_answer), tuple(names)]
    return list(dict.fromkeys(tried))


def shortened(parts: Sequence[str]) -> str:
    """Parts in words that fit a line."""
    layers: dict[str, list[str]] = {}
    for part in parts:
        name, _, layer = part.rpartition(" ")
        layers.setdefault(name if layer.isdigit() else part, []).append(layer if layer.isdigit() else "")
    return ", ".join(f"{name} {'+'.join(found)}".strip() for name, found in layers.items())


def as_a_version(problems: Problems, views: Mapping[View, Rows], layers: Sequence[int], trial: Trial) -> Doubles:
    """Held-out predictions of the product's own ridge regression: float64 [n_held_out]."""
    poolings: tuple[Pooling, ...] = ("max", "sqrt_mean", "last")
    parts = [[views[layer, "prompt"].csr(pooling) for layer in layers] for pooling in poolings]
    side_by_side = [sparse.csr_matrix(sparse.hstack(part)) for part in parts]
    matrix = sparse.csr_matrix(sparse.hstack(side_by_side))
    rows = trial.development
    fractions = hash_fractions([problems.prompts[row] for row in rows], "inner fold")
    widths = [part.shape[1] for part in side_by_side]
    model = fit_ridge(matrix[rows], problems.difficulty[rows], fractions, widths)
    return model.predict(matrix[trial.held_out])


def main() -> None:
    """Reads, tries, opens, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SAERL_REFERENCE_DATA"))
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 10, 15, 20, 25])
    parser.add_argument("--latents", type=int, default=4_096)
    parser.add_argument("--training-tokens", type=int, default=800_000)
    parser.add_argument("--limit", type=int, help="only the first so many prompts, to try it")
    parser.add_argument("--skip-search", action="store_true", help="only what a version learns by itself")
    parser.add_argument("--cache", type=Path, default=model_cache() / "benchmarks")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder with deepscaler_passrate.parquet: --data FOLDER")
    problems = load_problems(Path(arguments.data), arguments.limit)
    sae = SaeSpec(n_latents=arguments.latents, training_tokens=arguments.training_tokens, max_activation_tokens=400_000)
    responses = [f"\nAnswer: {answer}" for answer in problems.answers]
    request = Request(problems.prompts, responses, arguments.layers, ("prompt", "response"), sae=sae)
    views, facts = read_texts(request, arguments.cache)
    for layer, found in facts["layers"].items():
        print(f"SAE of layer {layer}: explained variance {found['explained_variance']:.3f}, L0 {found['l0']:.1f}")
    layers = arguments.layers
    sides: dict[str, Callable[[], dict[str, Floats]]] = {
        "sae": lambda: feature_kernels(views, layers, random=False),
        "dense": lambda: state_kernels(views, layers),
        "random_sae": lambda: feature_kernels(views, layers, random=True),
        "tfidf": lambda: word_kernels(problems),
        "length": lambda: length_kernels(views, layers[0]),
    }
    trial = Trial(problems)
    print(f"\n{len(trial.development):,} prompts to choose on, {len(trial.held_out):,} held out\n")
    figures: dict[str, float] = {}
    draws: dict[str, Doubles] = {}
    opened: list[str] = []
    for side, make in ({} if arguments.skip_search else sides).items():
        kernels = make()  # of one side at a time: each takes 4 bytes for every pair of prompts
        tried = [trial.try_out(kernels, side, parts, is_curved=False) for parts in combinations(kernels, side, layers)]
        best = max(tried, key=lambda each: each.value)
        best = max(best, trial.try_out(kernels, side, best.parts, is_curved=True), key=lambda each: each.value)
        product = curved(mean_of(kernels, best.parts)) if best.is_curved else mean_of(kernels, best.parts)
        score, few = trial.open(product, best.penalty), trial.with_few_labels(product)
        figures[f"spearman_{side}"], draws[side] = trial.measure(score), trial.draws(score)
        figures[f"spearman_{side}_1000_labels"] = float(np.mean(few)) if few else float("nan")
        low, high = np.percentile(draws[side], (2.5, 97.5))
        opened.append(
            f"{side:22}{figures[f'spearman_{side}']:11.3f}{low:9.3f} to{high:6.3f}"
            f"{figures[f'spearman_{side}_1000_labels']:14.3f}  {shortened(best.parts)}{' and curved' * best.is_curved}"
        )
    print(f"\n{'held out, opened once':22}{'all labels':>11}{'95% interval':>18}{f'{FEW_LABELS:,} labels':>14}")
    print("\n".join(opened), "\n")
    version = trial.measure(as_a_version(problems, views, layers, trial))
    print(f"{'as a version learns it':22}{version:11.3f}")
    figures["spearman_as_a_version"] = version
    for side in list(draws)[1:]:
        low, high = np.percentile(draws["sae"] - draws[side], (2.5, 97.5))
        difference = figures["spearman_sae"] - figures[f"spearman_{side}"]
        figures |= {f"sae_over_{side}": difference, f"sae_over_{side}_low": low, f"sae_over_{side}_high": high}
        print(f"SAE minus {side:12}{difference:+.3f}  ({low:+.3f} to {high:+.3f})")
    known = {name: round(float(value), 4) if np.isfinite(value) else None for name, value in figures.items()}
    print(json.dumps(known))


if __name__ == "__main__":
    main()
