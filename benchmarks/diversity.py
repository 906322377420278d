"""How well clusters find the families of prompts: SAE features against words, dense states and a random SAE.

    python benchmarks/diversity.py [--data FOLDER] [--demo 2000] [--mix 1000] [--seeds 5] [--cache FOLDER]

Two sets of prompts whose families are known, and which no clustering is told: the demo's 17 task families of
reasoning-gym, and a mix of GSM8K and DeepScaleR prompts (`--data`, or SAERL_REFERENCE_DATA: a folder with
`gsm8k_train.jsonl` and `deepscaler_passrate.parquet`; left out where there is none). For each:

- clusters by the product's own `fit_clusters` on SAE features, every pooling with every weighting, and on those of a
  random SAE; by scikit-learn's KMeans on TF-IDF rows of length 1 and on dense states (the mean, centred, of length 1;
  and the last token's). As many clusters as there are families, and the square root of half the number of prompts.
  Normalised mutual information (NMI) and adjusted Rand index (ARI) with the families, mean and spread over seeds.
- a linear topic probe: logistic regression on the same inputs, its penalty chosen inside the folds, 5-fold
  cross-validated accuracy.
- how `k` may be chosen: what `auto` chooses, that square root, the k with the best silhouette and the most stable one.
- a child version: its parent has all but a twentieth of the prompts, or the other half of them, or lacks one family.
  How many prompts keep their cluster, and which measures of drift say so, when it starts from the parent's centroids
  and when it starts fresh.

Readings are kept below `--cache`, so that a second run reads nothing. The last line is one JSON object: `nmi_sae`,
`nmi_tfidf`, `nmi_dense`, `nmi_random_sae`, `ari_*` and `probe_*` alike, for each set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import tomllib
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
from reading import Request, Rows, read_texts
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler, normalize

from saerl_assets.domain.cluster_quality import measure_clusters
from saerl_assets.domain.clusters import assignment_frame, fit_clusters
from saerl_assets.domain.drift import State, cluster_drift, version_drift
from saerl_assets.domain.features import ENTRY_COLUMNS, FeatureRows, feature_density, pool
from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.domain.spec import ClusterSpec, DriftSpec, Pooling, SaeSpec
from saerl_assets.storage.home import model_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.clusters import Centroids
    from saerl_assets.domain.features import EntryColumn, FloatMatrix
    from saerl_assets.domain.spec import Weighting

    Labels: TypeAlias = NDArray[np.int64]

SAE = SaeSpec(training_tokens=200_000)
"""As the demo's."""
SUFFIX = " Let's think step by step and output the final answer within \\boxed{}."
"""Ends every DeepScaleR prompt and no other: a cluster would need nothing else."""
POOLINGS: tuple[Pooling, ...] = ("max", "mean", "fraction", "binary")
WEIGHTINGS: tuple[Weighting, ...] = ("none", "sqrt", "idf", "sqrt_idf")
PENALTIES = [0.01, 0.1, 1.0, 10.0]
BLOCK_ROWS = 512


@dataclass(frozen=True)
class Known:
    """Prompts and the family of each."""

    name: str
    texts: list[str]
    families: list[str]

    @cached_property
    def family(self) -> Labels:
        """[n] families as numbers."""
        return np.asarray(np.unique(self.families, return_inverse=True)[1], dtype=np.int64)


@dataclass(frozen=True)
class ReadFeatures:
    """Rows that were read, as the features of a version; or some of them."""

    rows: FeatureRows
    n_features: int

    @property
    def prompt_ids(self) -> list[str]:
        """The prompts by number."""
        return self.rows.prompt_ids

    def csr(self, pooling: Pooling, rows: NDArray[np.int64] | None = None) -> FloatMatrix:
        """See `FeatureSet.csr`."""
        matrix = pool(self.rows, pooling, self.n_features)
        return matrix if rows is None else matrix[rows]

    def blocks(self, pooling: Pooling) -> Iterator[tuple[int, FloatMatrix]]:
        """See `FeatureSet.blocks`."""
        matrix = self.csr(pooling)
        for start in range(0, matrix.shape[0], BLOCK_ROWS):
            yield start, matrix[start : start + BLOCK_ROWS]

    def activations(self, columns: Sequence[EntryColumn] = ENTRY_COLUMNS) -> Iterator[FeatureRows]:
        """See `FeatureSet.activations`; every column is there."""
        del columns
        yield self.rows

    def some(self, chosen: NDArray[np.int64]) -> ReadFeatures:
        """The features of some prompts by ascending number."""
        lengths = np.diff(self.rows.indptr)
        entries = np.flatnonzero(np.isin(self.rows.rows(), chosen))
        columns = ("feature_ids", "maximum", "total", "last", "n_active", "argmax_token")
        kept = FeatureRows(
            prompt_ids=[self.rows.prompt_ids[row] for row in chosen],
            n_tokens=self.rows.n_tokens[chosen],
            indptr=np.concatenate([[0], np.cumsum(lengths[chosen])]),
            **{name: getattr(self.rows, name)[entries] for name in columns},
        )
        return ReadFeatures(kept, self.n_features)


def demo_prompts(n: int) -> Known:
    """The first rows of the demo's dataset."""
    tasks = Path(__file__).parents[1] / "examples" / "demo" / "tasks.toml"
    rows = list(islice(generate_rows(parse_tasks(tomllib.loads(tasks.read_text()))), n))
    return Known("demo", [str(row["prompt"]) for row in rows], [str(row["family"]) for row in rows])


def mixed_prompts(folder: Path, n: int) -> Known:
    """So many distinct prompts of either dataset, by hash."""
    solved = [json.loads(line)["question"] for line in (folder / "gsm8k_train.jsonl").read_text().splitlines()]
    rated = [messages[0]["content"] for messages in pl.read_parquet(folder / "deepscaler_passrate.parquet")["prompt"]]
    texts: list[str] = []
    for found in (solved, [text.removesuffix(SUFFIX) for text in rated]):
        texts += sorted(set(found), key=lambda text: hashlib.sha256(text.encode()).hexdigest())[:n]
    return Known("mix", texts, ["gsm8k"] * n + ["deepscaler"] * n)


def words_of(known: Known) -> sparse.csr_matrix:
    """TF-IDF of words and pairs of words, as the evidence of a version has it, rows of length 1."""
    words = r"\S+"
    vectoriser = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=50_000, token_pattern=words
    )
    return sparse.csr_matrix(vectoriser.fit_transform(known.texts))


def of_length_one(states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense states without their common mean, which hides what sets them apart."""
    return np.asarray(normalize(states - states.mean(axis=0)), dtype=np.float32)


def by_kmeans(matrix: Any, k: int, seed: int) -> Labels:  # noqa: ANN401 - dense or sparse
    """Clusters of scikit-learn, as many starts as ours."""
    return np.asarray(KMeans(k, n_init=5, random_state=seed).fit_predict(matrix), dtype=np.int64)


def by_features(features: ReadFeatures, pooling: Pooling, weighting: Weighting) -> Callable[[int, int], Labels]:
    """Clusters of the product."""

    def find(k: int, seed: int) -> Labels:
        spec = ClusterSpec(k=k, pooling=pooling, weighting=weighting)
        return fit_clusters(features, spec, seed).places.astype(np.int64)

    return find


def agreement(known: Known, find: Callable[[int, int], Labels], k: int, n_seeds: int) -> dict[str, float]:
    """NMI and ARI with the families over seeds."""
    found = [find(k, seed) for seed in range(n_seeds)]
    nmi = [float(normalized_mutual_info_score(known.family, labels)) for labels in found]
    ari = [float(adjusted_rand_score(known.family, labels)) for labels in found]
    return {
        "nmi": float(np.mean(nmi)),
        "nmi_sd": float(np.std(nmi)),
        "ari": float(np.mean(ari)),
        "ari_sd": float(np.std(ari)),
    }


def probe(known: Known, matrix: Any) -> float:  # noqa: ANN401 - dense or sparse
    """Cross-validated accuracy of a linear probe, its penalty chosen in the folds."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scaler = MaxAbsScaler() if sparse.issparse(matrix) else StandardScaler()
    search = GridSearchCV(
        make_pipeline(scaler, LogisticRegression(max_iter=300)), {"logisticregression__C": PENALTIES}, cv=3
    )
    return float(np.mean(cross_val_score(search, matrix, known.family, cv=folds)))


def compare(known: Known, rows: Rows, n_seeds: int) -> dict[str, Any]:
    """Every input on one set of prompts."""
    n_families = len(set(known.families))
    ks = {"k_families": n_families, "k_many": rule_of_thumb(known)}
    print(f"\n{known.name}: {len(known.texts):,} prompts of {n_families} families, {n_seeds} seeds")
    header = f"{'clusters of':28}" + "".join(f"{f'NMI, k = {k}':>18}{'ARI':>16}" for k in ks.values())
    print(header)
    features, control = ReadFeatures(rows.features, rows.n_latents), ReadFeatures(rows.random, rows.n_latents)
    words, mean, last = words_of(known), of_length_one(rows.mean), of_length_one(rows.last)
    sides: dict[str, Callable[[int, int], Labels]] = {
        "tfidf": lambda k, seed: by_kmeans(words, k, seed),
        "dense_mean": lambda k, seed: by_kmeans(mean, k, seed),
        "dense_last": lambda k, seed: by_kmeans(last, k, seed),
    }
    for pooling in POOLINGS:
        for weighting in WEIGHTINGS:
            if pooling != "binary" or weighting in ("none", "idf"):  # a one is its own square root
                sides[f"sae {pooling} {weighting}"] = by_features(features, pooling, weighting)
    chosen = ClusterSpec()
    sides["random_sae"] = by_features(control, chosen.pooling, chosen.weighting)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, find in sides.items():
        table[name] = {at: agreement(known, find, k, n_seeds) for at, k in ks.items()}
        said = "".join(
            f"{row['nmi']:10.3f} +- {row['nmi_sd']:.3f}{row['ari']:8.3f} +- {row['ari_sd']:.3f}"
            for row in table[name].values()
        )
        print(f"{name:28}{said}", flush=True)
    inputs = {
        "tfidf": words,
        "dense_mean": rows.mean,
        "dense_last": rows.last,
        "random_sae": rows.csr("max", random=True),
        "sae_max": rows.csr("max"),
        "sae_binary": rows.csr("binary"),
    }
    probes = {}
    for name, matrix in inputs.items():
        probes[name] = probe(known, matrix)
        print(f"topic probe on {name:16} accuracy {probes[name]:.4f}", flush=True)
    return {"clusters": table, "probe": probes, "k": ks}


def rule_of_thumb(known: Known) -> int:
    """The square root of half the number of prompts."""
    return round(math.sqrt(len(known.texts) / 2))


def choose(known: Known, rows: Rows, n_seeds: int) -> dict[str, Any]:
    """NMI at the k that `auto` chooses, at the rule of thumb's, and where silhouette or stability is best."""
    features = ReadFeatures(rows.features, rows.n_latents)
    rule = rule_of_thumb(known)
    grid = sorted({2, 4, 8, 12, 17, 24, 32, 48, 64} | {rule})
    found = {}
    for k in grid:
        spec = ClusterSpec(k=k)
        clustering = fit_clusters(features, spec, 0)
        quality = dict(measure_clusters(clustering, features, spec, 0).select("measure", "value").iter_rows())
        nmi = float(normalized_mutual_info_score(known.family, clustering.places))
        found[k] = {"nmi": nmi, "silhouette": quality["silhouette"], "stability": quality["stability"]}
        print(f"k = {k:3}  NMI {nmi:.3f}  silhouette {quality['silhouette']:.3f}  stability {quality['stability']:.3f}")
    by = {name: max(grid, key=lambda k: found[k][name]) for name in ("silhouette", "stability", "nmi")} | {"rule": rule}
    chosen = {name: {"k": k, "nmi": found[k]["nmi"]} for name, k in by.items()}
    fits = [fit_clusters(features, ClusterSpec(), seed).places for seed in range(n_seeds)]
    chosen["auto"] = {
        "k": [int(places.max()) + 1 for places in fits],
        "nmi": float(np.mean([normalized_mutual_info_score(known.family, places) for places in fits])),
    }
    print("; ".join(f"by {name}: k = {row['k']}, NMI {row['nmi']:.3f}" for name, row in chosen.items()), flush=True)
    return chosen


def state_of(features: ReadFeatures, seed: int, parent: Centroids | None) -> State:
    """The clusters of a version."""
    found = fit_clusters(features, ClusterSpec(), seed, parent)
    density = feature_density(features, [(0, 0, features.n_features)])
    return State(assignment_frame(found, features), found.centroids, density)


def refresh(known: Known, rows: Rows) -> dict[str, Any]:
    """A child that has 5% more prompts of the same kinds, or a family more; from the parent's centroids, and fresh."""
    features = ReadFeatures(rows.features, rows.n_latents)
    everyone = np.arange(len(known.texts))
    first_family = sorted(set(known.families))[0]
    half = np.random.default_rng(0).permutation(everyone)[: len(everyone) // 2]
    cases = {
        "a twentieth more": (everyone[everyone % 20 != 0], everyone),
        "other prompts of the same kinds": (np.sort(half), np.setdiff1d(everyone, half)),
        "a family more": (np.flatnonzero(np.array(known.families) != first_family), everyone),
    }
    found: dict[str, Any] = {}
    for name, (before, after) in cases.items():
        parent = state_of(features.some(before), 0, None)
        for start, inherited in (("parent", parent.centroids), ("fresh", None)):
            child = state_of(features.some(after), 1, inherited)
            drift = version_drift(parent, child, cluster_drift(parent, child), DriftSpec())
            values = dict(drift.select("measure", "value").iter_rows())
            drifted = drift.filter(verdict="drifted")["measure"].to_list()
            found[f"{name}, {start}"] = values | {"drifted": drifted}
            said = ", ".join(f"{measure} {value:.3f}" for measure, value in values.items() if value is not None)
            print(f"{name}, start {start}: {said}; beyond its limit: {', '.join(drifted) or 'none'}", flush=True)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with GSM8K and DeepScaleR (default: SAERL_REFERENCE_DATA)")
    parser.add_argument("--demo", type=int, default=2000, help="prompts of the demo (default: %(default)s)")
    parser.add_argument("--mix", type=int, default=1000, help="prompts of each dataset (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="clusterings of each kind (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=model_cache() / "benchmarks", help="where readings are kept")
    parser.add_argument("--only-read", action="store_true", help="read the prompts and stop")
    arguments = parser.parse_args()
    data = arguments.data or (
        Path(os.environ["SAERL_REFERENCE_DATA"]) if "SAERL_REFERENCE_DATA" in os.environ else None
    )
    sets = [demo_prompts(arguments.demo)]
    if data is not None:
        sets.append(mixed_prompts(data, arguments.mix))
    results: dict[str, Any] = {}
    for known in sets:
        read, facts = read_texts(Request(known.texts, [None] * len(known.texts), sae=SAE), arguments.cache)
        rows = read[15, "prompt"]
        if arguments.only_read:
            continue
        results[known.name] = compare(known, rows, arguments.seeds) | {
            "choice_of_k": choose(known, rows, arguments.seeds),
            "refresh": refresh(known, rows),
            "explained_variance": facts["layers"]["15"]["explained_variance"],
        }
    if arguments.only_read:
        return
    chosen = f"sae {ClusterSpec().pooling} {ClusterSpec().weighting}"
    names = {"sae": chosen, "tfidf": "tfidf", "dense": "dense_mean", "random_sae": "random_sae"}
    probes = {"sae": "sae_max", "tfidf": "tfidf", "dense": "dense_mean", "random_sae": "random_sae"}
    summary = {
        name: {
            f"{measure}_{side}": result["clusters"][row]["k_families"][measure]
            for measure in ("nmi", "ari")
            for side, row in names.items()
        }
        | {f"probe_{side}": result["probe"][row] for side, row in probes.items()}
        | {"details": result}
        for name, result in results.items()
    }
    print(json.dumps(summary, default=float))


if __name__ == "__main__":
    main()
