"""What share of spoilt prompts the lowest-scored tenth holds, with labels and without, and by what a sceptic would use.

    python benchmarks/corruption.py [--prompts 2000] [--labels 400] [--cache FOLDER]

A tenth of the demo's prompts is spoilt (corrupted_prompts): truncated, words shuffled, word for word in another
language, the answer leaked into it, two prompts joined. All are read as a version reads them, with an SAE that is
trained on just these prompts, spoilt ones among them. A score that knows nothing holds 10% of the spoilt prompts in its
lowest tenth; a perfect one all of them.

With labels: somebody has looked at `--labels` prompts and said which are spoilt, about a tenth of them. On each input
the kind of probe (logistic, ridge, two-layer perceptron) that ranks best in inner folds is fitted to them, by the
product's own functions, and scores the others. The mean over disjoint sets of labelled prompts. The features are
pooled by maximum, and dense states are means, as is the default.

Without labels, nothing but the prompts themselves:

- `unexplained`: the share of the variance of a prompt's states that the SAE's reconstruction leaves out;
- `centroid`: how far the prompt is from the nearest centroid of k-means (the product's for features, scikit-learn's on
  words and centred states);
- `neighbour`: how far it is from its 5th nearest neighbour, by cosine;
- `rare`: the mean rarity (logarithm of the inverse density) of its features or words;
- `short`, `long` and `unusual` length: few tokens, many, or many or few for its nearest cluster of words.

There are several of these for each side, so one is chosen: on as many other tasks of the same kinds (another seed, its
own SAE, other prompts spoilt), and only then the demo's prompts are scored. Intervals are percentiles of a bootstrap
over the spoilt prompts. What is read is kept below `--cache`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from corrupted_prompts import KINDS, Prompts, corrupted_prompts
from diversity import ReadFeatures, of_length_one
from reading import Request, Rows, read_texts
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer

from saerl_assets.domain.clusters import fit_clusters, unit_rows
from saerl_assets.domain.examples import Examples
from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.probes import choose, fit_chosen
from saerl_assets.domain.spec import ClusterSpec, SaeSpec
from saerl_assets.domain.threads import one_thread
from saerl_assets.storage.home import model_cache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix

    Doubles: TypeAlias = NDArray[np.float64]
    Integers: TypeAlias = NDArray[np.int64]
    Flags: TypeAlias = NDArray[np.bool_]

SAE = SaeSpec(training_tokens=200_000)
"""As the demo's."""
LAYER = 15
FRACTION = 0.1
OTHER_TASKS_SEED = 20260528
N_NEIGHBOURS = 5
N_BOOTSTRAP = 1_000
SIDES = ("sae", "random_sae", "dense", "tfidf", "length")


@dataclass(frozen=True)
class Dataset:
    """Prompts that were read."""

    prompts: Prompts
    rows: Rows

    @property
    def n_tokens(self) -> Doubles:
        """Of each prompt, float64 [n]."""
        return self.rows.features.n_tokens.astype(np.float64)

    def words(self) -> FloatMatrix:
        """TF-IDF of words, pairs of words and signs."""
        marks = r"\w+|[^\w\s]"
        vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=marks)
        return sparse.csr_matrix(vectoriser.fit_transform(self.prompts.texts), dtype=np.float32)


def read(n_prompts: int, tasks_seed: int | None, cache: Path) -> Dataset:
    """The demo's prompts, or other tasks of the same kinds, a tenth of them spoilt."""
    prompts = corrupted_prompts(n_prompts, FRACTION, tasks_seed=tasks_seed)
    request = Request(prompts.texts, [None] * len(prompts.texts), (LAYER,), dtype="bfloat16", sae=SAE)
    views, facts = read_texts(request, cache)
    found = facts["layers"][str(LAYER)]
    print(f"SAE: explained variance {found['explained_variance']:.3f}, L0 {found['l0']:.1f}", flush=True)
    return Dataset(prompts, views[LAYER, "prompt"])


def unlabelled_scores(dataset: Dataset) -> dict[str, Doubles]:
    """Scores that need no label, by side and name; the lower, the worse."""
    rows = dataset.rows
    found = {"sae unexplained": -rows.unexplained}
    for side, is_random in (("sae", False), ("random_sae", True)):
        features = ReadFeatures(rows.random if is_random else rows.features, rows.n_latents)
        spec = ClusterSpec()
        clusters = fit_clusters(features, spec, 0)
        found[f"{side} centroid"] = clusters.similarity.astype(np.float64)
        units = unit_rows(rows.csr(spec.pooling, random=is_random), spec.weighting, clusters.centroids.weights)
        found[f"{side} neighbour"] = to_neighbour(np.asarray((units @ units.T).toarray()))
        found[f"{side} rare"] = -mean_rarity(rows.csr("binary", random=is_random))
    n_clusters = round(np.sqrt(len(dataset.prompts.texts) / 2))
    states, words = of_length_one(rows.mean), dataset.words()
    by_states, by_words = (KMeans(n_clusters, n_init=3, random_state=0).fit(each) for each in (states, words))
    found["dense centroid"] = -by_states.transform(states).min(axis=1).astype(np.float64)
    found["dense neighbour"] = to_neighbour(states @ states.T)
    found["tfidf centroid"] = -by_words.transform(words).min(axis=1).astype(np.float64)
    found["tfidf neighbour"] = to_neighbour(np.asarray((words @ words.T).toarray()))
    found["tfidf rare"] = -mean_rarity(words)
    length = np.log1p(dataset.n_tokens)
    usual = np.array([np.median(length[by_words.labels_ == cluster]) for cluster in range(n_clusters)])
    found |= {"length short": length, "length long": -length}
    found["length unusual"] = -np.abs(length - usual[by_words.labels_])
    return found


def to_neighbour(cosines: NDArray[np.floating]) -> Doubles:
    """Cosine to the nearest neighbour but four, float64 [n]."""
    others = cosines.astype(np.float64)
    np.fill_diagonal(others, -np.inf)
    return np.partition(others, -N_NEIGHBOURS, axis=1)[:, -N_NEIGHBOURS]


def mean_rarity(matrix: FloatMatrix) -> Doubles:
    """Mean over a row's entries of the logarithm of their columns' inverse density, float64 [n]."""
    n_rows = matrix.shape[0]
    rarity = np.log(n_rows / np.maximum(np.bincount(matrix.indices, minlength=matrix.shape[1]), 1))
    row = np.repeat(np.arange(n_rows), np.diff(matrix.indptr))
    summed = np.bincount(row, weights=rarity[matrix.indices], minlength=n_rows)
    return np.asarray(summed / np.maximum(np.diff(matrix.indptr), 1))


def lowest(score: Doubles, rows: Integers) -> Flags:
    """Whether each of the rows is in the lowest-scored tenth of them; of ties any, by a fixed draw."""
    draw = np.random.default_rng(0).permutation(len(rows))
    order = np.lexsort((draw, score[rows]))
    found = np.zeros(len(rows), dtype=bool)
    found[order[: round(FRACTION * len(rows))]] = True
    return found


@dataclass(frozen=True)
class Caught:
    """Which spoilt prompts were in the lowest tenth, in every round of scoring."""

    hits: Doubles
    """One for each spoilt prompt and round."""
    kinds: NDArray[np.str_]

    @property
    def share(self) -> float:
        """Of all spoilt prompts."""
        return float(self.hits.mean())

    def by_kind(self) -> dict[str, float]:
        """Of those of each kind."""
        return {kind: float(self.hits[self.kinds == kind].mean()) for kind in KINDS}


def caught(score: Doubles, prompts: Prompts, rows: Integers) -> Caught:
    """What the lowest tenth of some rows holds."""
    is_spoilt = prompts.is_corrupted[rows]
    return Caught(lowest(score, rows)[is_spoilt].astype(np.float64), prompts.kinds[rows][is_spoilt])


def with_labels(matrix: FloatMatrix, prompts: Prompts, n_labels: int) -> tuple[Caught, Doubles, list[str]]:
    """Scores by probes fitted to disjoint sets of labelled prompts.

    Returns:
        Every round together; for each prompt how often it was caught of the rounds in which it was not among the
        labelled ones, the same rounds for every input; the kinds of probe that were chosen.
    """
    n_prompts = len(prompts.texts)
    names = [str(row) for row in range(n_prompts)]
    order = np.argsort(hash_fractions(names, seed=0, purpose="labelled"), kind="stable")
    fractions = hash_fractions(names, seed=0, purpose="inner fold")
    goal, rounds, kinds = (~prompts.is_corrupted).astype(np.float64), [], []
    hits, times = np.zeros(n_prompts), np.zeros(n_prompts)
    for start in range(0, n_prompts - n_labels + 1, n_labels):
        labelled = np.sort(order[start : start + n_labels])
        others = np.setdiff1d(np.arange(n_prompts), labelled)
        known = Examples(matrix[labelled], goal[labelled], np.ones(n_labels), fractions[labelled])
        chosen = choose("best", known)
        score = np.zeros(n_prompts)
        score[others] = fit_chosen(chosen, known).predict(matrix[others])
        rounds.append(caught(score, prompts, others))
        kinds.append(str(chosen.kind))
        hits[others] += lowest(score, others)
        times[others] += 1
    together = Caught(np.concatenate([each.hits for each in rounds]), np.concatenate([each.kinds for each in rounds]))
    return together, np.divide(hits, times, out=np.zeros(n_prompts), where=times > 0), kinds


def probe_inputs(dataset: Dataset) -> dict[str, FloatMatrix]:
    """What each side learns from."""
    length = np.stack([dataset.n_tokens, np.log1p(dataset.n_tokens)], axis=1).astype(np.float32)
    found: dict[str, FloatMatrix] = {
        "sae": dataset.rows.csr("max"),
        "random_sae": dataset.rows.csr("max", random=True),
        "dense": sparse.csr_matrix(dataset.rows.mean),
        "tfidf": dataset.words(),
        "length": sparse.csr_matrix(length),
    }
    return found


def draws(hits: Doubles) -> Doubles:
    """Share caught on bootstrap samples of spoilt prompts, the same for every score: float64 [N_BOOTSTRAP]."""
    samples = np.random.default_rng(0).integers(0, len(hits), (N_BOOTSTRAP, len(hits)))
    return np.asarray(hits[samples].mean(axis=1))


def report(title: str, shares: Mapping[str, Caught], hits: Mapping[str, Doubles]) -> dict[str, object]:
    """Prints a line for each score, and the SAE's beside that of every other side, which come first."""
    print(f"\n{title:32}{'caught':>8}{'95% interval':>16}" + "".join(f"{kind:>16}" for kind in KINDS))
    figures: dict[str, object] = {}
    for side, found in shares.items():
        low, high = np.percentile(draws(hits[side]), (2.5, 97.5))
        kinds = found.by_kind()
        said = "".join(f"{kinds[kind]:16.2f}" for kind in KINDS)
        print(f"{side:32}{found.share:8.3f}{low:8.3f} to{high:5.2f}{said}", flush=True)
        figures[side] = {"caught": found.share, "low": low, "high": high, "kinds": kinds}
    first, *others = list(shares)[: len(SIDES)]
    for side in others:
        low, high = np.percentile(draws(hits[first]) - draws(hits[side]), (2.5, 97.5))
        print(f"{first} minus {side}: {shares[first].share - shares[side].share:+.3f} ({low:+.3f} to {high:+.3f})")
    return figures


def main() -> None:
    """Reads, scores, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2_000)
    parser.add_argument("--labels", type=int, default=400)
    parser.add_argument("--cache", type=Path, default=model_cache() / "benchmarks")
    arguments = parser.parse_args()
    other, demo = (read(arguments.prompts, seed, arguments.cache) for seed in (OTHER_TASKS_SEED, None))
    prompts, everyone = demo.prompts, np.arange(len(demo.prompts.texts))
    is_spoilt = prompts.is_corrupted
    print(f"{len(everyone):,} prompts of the demo, {int(is_spoilt.sum())} of them spoilt; chance holds {FRACTION:.0%}")
    with one_thread():
        rehearsed = {
            name: caught(score, other.prompts, everyone).share for name, score in unlabelled_scores(other).items()
        }
        opened = {name: caught(score, prompts, everyone) for name, score in unlabelled_scores(demo).items()}
        chosen = {
            side: max((name for name in opened if name.startswith(f"{side} ")), key=rehearsed.__getitem__)
            for side in SIDES
        }
        ordered = {name: opened[name] for name in [*chosen.values(), *sorted(set(opened) - set(chosen.values()))]}
        unlabelled = report("without labels", ordered, {name: found.hits for name, found in ordered.items()})
        print("chosen on other tasks: " + ", ".join(f"{name} {rehearsed[name]:.3f}" for name in chosen.values()))
        labelled, hits, kinds = {}, {}, {}
        for side, matrix in probe_inputs(demo).items():
            labelled[side], often, kinds[side] = with_labels(matrix, prompts, arguments.labels)
            hits[side] = often[is_spoilt]
    probes = report(f"with {arguments.labels} labels", labelled, hits)
    print("kinds of probe: " + "; ".join(f"{side} {', '.join(found)}" for side, found in kinds.items()))
    result: dict[str, object] = {"chance": FRACTION}
    result |= {f"with_labels_{side}": found.share for side, found in labelled.items()}
    result |= {f"without_labels_{side}": opened[name].share for side, name in chosen.items()}
    result |= {"chosen": chosen, "rehearsed": rehearsed, "with_labels": probes, "without_labels": unlabelled}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
