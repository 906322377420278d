"""How long clusters, difficulty and quality take for many prompts, in how much memory, and scikit-learn on the same.

    python benchmarks/signals.py [--prompts 100000] [--latents 32768] [--k 64] [--labels 10000]
                                 [--skip-scikit-learn] [--cap-seconds 300] [--home FOLDER]

Makes up sparse features (about 700 active ones a prompt, Zipf density, planted clusters and labels; see
made_up_features) and puts them into a warehouse in a temporary home. That is not measured. Then, in this process on two
cores: reads all features once; clusters the prompts; scores their difficulty with a proxy learned from the labelled
prompts; trains a quality probe on as many outcomes and scores every prompt; writes assignments and scores to the
warehouse. Every stage reads what it needs from the warehouse itself, which is part of its time.

Beside each stage the figure that shows that it has worked: agreement with the planted clusters (normalised mutual
information), rank correlation of the scores with the planted difficulty on prompts without a label, and the area under
the ROC curve of the planted quality there.

The other side is scikit-learn called the obvious way on the same matrix of `max` pooled features, in processes of
their own that can be stopped: `KMeans(n_clusters=k)`, `ElasticNetCV(cv=5)` and `LogisticRegressionCV(cv=5)`, all other
settings their defaults, fitted and applied to every prompt, with the same figure beside them. Its time starts when the
matrix is in memory, where ours reads it. Each is stopped after --cap-seconds; then its time is at least that, and the
ratio is a lower bound. Ours does more in that time: it also learns five times without a fifth of the labels, for the
figures that it stores.

The last line is one JSON object: `total_seconds` and `peak_rss_gb` of our side, and `over_scikit_learn`, how many times
as long scikit-learn takes for fitting and applying its three estimators as ours for the three stages that do the same.
It takes disk for the features twice while they are made: about 15 GB for each million prompts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from made_up_features import ENCODER_ID, VERSION, MadeUp, fill_warehouse

from saerl_assets.domain.clusters import assignment_frame, fit_clusters
from saerl_assets.domain.difficulty import score_difficulty
from saerl_assets.domain.predictors import PooledFeatures
from saerl_assets.domain.quality import train_probe
from saerl_assets.domain.quality_filter import score_quality
from saerl_assets.domain.spec import ClusterSpec, DifficultySpec, QualitySpec
from saerl_assets.storage.feature_store import EncodedLayer, WarehouseFeatures
from saerl_assets.storage.home import Home
from saerl_assets.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

SEED = 0
N_CORES = 2
FIGURES = {
    "KMeans": "normalised mutual information",
    "ElasticNetCV": "rank correlation",
    "LogisticRegressionCV": "area under the ROC curve",
}


def open_features(warehouse: Warehouse, n_latents: int) -> tuple[WarehouseFeatures, pl.DataFrame]:
    """The handle on the features, and the prompts in their order."""
    prompts = warehouse.rows("prompts", dataset_version=VERSION)
    return WarehouseFeatures(warehouse, prompts, [EncodedLayer(ENCODER_ID, 0, n_latents)]), prompts


class Stages:
    """Seconds of each stage, told as they pass."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the work gives
        """Runs one stage."""
        started, processor = time.perf_counter(), time.process_time()
        found = work()
        self.seconds[name] = time.perf_counter() - started
        processor = time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(f"{name:28}{self.seconds[name]:9.1f} s{processor:9.1f} s of processors{peak:8.2f} GB peak", flush=True)
        return found


def measure(root: Path, made_up: MadeUp, done: Connection) -> None:
    """Our side; the results go to `done`."""
    warehouse = Warehouse(Home(root))
    stages = Stages()
    features, prompts = stages.run("open", lambda: open_features(warehouse, made_up.n_latents))
    labels = warehouse.rows("labels", dataset_version=VERSION)
    n_entries = stages.run("load", lambda: sum(block.nnz for _, block in features.blocks("max")))
    print(f"{'':4}{n_entries / len(prompts):,.0f} active features a prompt", flush=True)

    clustered = stages.run("cluster", lambda: fit_clusters(features, ClusterSpec(k=made_up.n_clusters), SEED))
    difficulty = stages.run("difficulty", lambda: score_difficulty(features, prompts, labels, DifficultySpec(), SEED))
    predictor, spec = PooledFeatures(features, "max", "sae_max"), QualitySpec()
    probe = stages.run("quality: probe", lambda: train_probe(predictor, prompts, labels, spec, SEED))
    quality = stages.run("quality: scores", lambda: score_quality(predictor, prompts, probe, spec))

    def write() -> None:
        warehouse.store("cluster_assignments", assignment_frame(clustered, features), VERSION)
        warehouse.store("difficulty_scores", difficulty.scores, VERSION)
        warehouse.store("quality_scores", quality, VERSION)

    stages.run("write", write)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    written = {
        "KMeans": warehouse.rows("cluster_assignments", dataset_version=VERSION)["cluster_id"].to_numpy(),
        "ElasticNetCV": warehouse.rows("difficulty_scores", dataset_version=VERSION)["difficulty"].to_numpy(),
        "LogisticRegressionCV": warehouse.rows("quality_scores", dataset_version=VERSION)["quality"].to_numpy(),
    }
    figures = {name: agreement(name, prompts, labels, found) for name, found in written.items()}
    done.send({"seconds": stages.seconds, "peak_rss_gb": peak, "figures": figures})


def agreement(name: str, prompts: pl.DataFrame, labels: pl.DataFrame, found: NDArray[np.generic]) -> float:
    """How well the planted structure was found; of the labels' signal on prompts that have no label."""
    from scipy.stats import spearmanr
    from sklearn.metrics import normalized_mutual_info_score, roc_auc_score

    if name == "KMeans":
        return float(normalized_mutual_info_score(prompts["topic"].to_numpy(), found))
    extra = prompts["extra"].str.json_decode(pl.Struct({"signal": pl.Float64}))
    signal = extra.struct.field("signal").to_numpy()
    unseen = ~prompts["prompt_id"].is_in(labels["prompt_id"].unique().implode()).to_numpy()
    if not unseen.any():
        return float("nan")
    if name == "ElasticNetCV":
        return float(spearmanr(found[unseen], signal[unseen]).statistic)
    return float(roc_auc_score(signal[unseen] < np.median(signal), found[unseen]))


def estimators(made_up: MadeUp) -> dict[str, Callable[[], Any]]:
    """scikit-learn's, as one would call them first."""
    from sklearn.cluster import KMeans
    from sklearn.linear_model import ElasticNetCV, LogisticRegressionCV

    return {
        "KMeans": lambda: KMeans(n_clusters=made_up.n_clusters, random_state=SEED),
        "ElasticNetCV": lambda: ElasticNetCV(cv=5),
        "LogisticRegressionCV": lambda: LogisticRegressionCV(cv=5),
    }


def run_scikit_learn(root: Path, made_up: MadeUp, name: str, done: Connection) -> None:
    """Loads the matrix, fits one estimator and applies it to every prompt; says when it begins, and what it found."""
    features, prompts = open_features(Warehouse(Home(root)), made_up.n_latents)
    labels = Warehouse(Home(root)).rows("labels", dataset_version=VERSION)
    matrix = features.csr("max")
    estimator = estimators(made_up)[name]()
    row_of = dict(zip(prompts["prompt_id"], range(len(prompts)), strict=True))
    wanted = labels.filter(pl.col("label") == ("difficulty" if name == "ElasticNetCV" else "correct"))
    rows = np.array([row_of[prompt_id] for prompt_id in wanted["prompt_id"]])
    target = wanted["value"].to_numpy()
    warnings.simplefilter("ignore")  # that it has not converged, and that defaults will change
    done.send("begins")
    if name == "KMeans":
        found = estimator.fit_predict(matrix)
    elif name == "ElasticNetCV":
        found = estimator.fit(matrix[rows], target).predict(matrix)
    else:
        found = estimator.fit(matrix[rows], target).predict_proba(matrix)[:, 1]
    done.send("ends")
    done.send(agreement(name, prompts, labels, found))


def scikit_learn(root: Path, made_up: MadeUp, name: str, cap_seconds: float) -> tuple[float, float | None]:
    """Seconds that an estimator takes, and how well it does; None if it did not come to its end within the cap."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("spawn").Process(target=run_scikit_learn, args=(root, made_up, name, sender))
    worker.start()
    sender.close()
    receiver.recv()
    started = time.perf_counter()
    ended = receiver.poll(cap_seconds) and receiver.recv() == "ends"
    seconds = time.perf_counter() - started
    figure = receiver.recv() if ended else None
    worker.kill()
    worker.join()
    return seconds, figure


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--latents", type=int, default=32_768)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--cap-seconds", type=float, default=300.0, help="stop each of scikit-learn's after this")
    parser.add_argument("--skip-scikit-learn", action="store_true")
    parser.add_argument("--home", type=Path, help="keep the made-up warehouse here, and use one that is there")
    arguments = parser.parse_args()
    made_up = MadeUp(arguments.prompts, arguments.latents, arguments.k)
    print(
        f"{arguments.prompts:,} prompts x {arguments.latents:,} latents, k = {arguments.k}, {arguments.labels:,} labels"
    )
    with TemporaryDirectory(prefix="saerl-signals-") as folder:
        root = arguments.home or Path(folder)
        print(json.dumps(both_sides(root, made_up, arguments)))


def both_sides(root: Path, made_up: MadeUp, arguments: argparse.Namespace) -> dict[str, object]:
    """Makes up what is not there yet, measures ours, then scikit-learn's."""
    spawn = multiprocessing.get_context("spawn")
    if not (root / "warehouse.duckdb").exists():
        started = time.perf_counter()
        maker = spawn.Process(target=make, args=(root, made_up, arguments.labels))
        maker.start()
        maker.join()
        print(f"made up in {time.perf_counter() - started:,.0f} s\n", flush=True)
    receiver, sender = spawn.Pipe(duplex=False)
    worker = spawn.Process(target=measure, args=(root, made_up, sender))
    worker.start()
    sender.close()
    ours = receiver.recv()
    worker.join()
    seconds, figures = ours["seconds"], ours["figures"]
    total = sum(seconds.values())
    print(f"{'in all':28}{total:9.1f} s\n")
    print("planted structure found: " + ", ".join(f"{FIGURES[name]} {value:.3f}" for name, value in figures.items()))
    result: dict[str, object] = {"total_seconds": round(total, 1), "peak_rss_gb": round(ours["peak_rss_gb"], 3)}
    if not arguments.skip_scikit_learn:
        same = {
            "KMeans": seconds["cluster"],
            "ElasticNetCV": seconds["difficulty"],
            "LogisticRegressionCV": seconds["quality: probe"] + seconds["quality: scores"],
        }
        theirs = {name: scikit_learn(root, made_up, name, arguments.cap_seconds) for name in same}
        print(f"\n{'scikit-learn':24}{'seconds':>9}{'over ours':>11}")
        for name, (taken, figure) in theirs.items():
            said = (
                f"stopped, so at least {taken / same[name]:.1f}" if figure is None else f"{FIGURES[name]} {figure:.3f}"
            )
            print(f"{name:24}{taken:9.1f}{taken / same[name]:11.1f}   {said}")
        result |= {
            "over_scikit_learn": round(sum(taken for taken, _ in theirs.values()) / sum(same.values()), 2),
            "is_lower_bound": any(figure is None for _, figure in theirs.values()),
            "scikit_learn_seconds": {name: round(taken, 1) for name, (taken, _) in theirs.items()},
            "scikit_learn_figures": {name: figure for name, (_, figure) in theirs.items()},
        }
    return result | {
        "prompts": arguments.prompts,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "figures": {name: round(value, 3) for name, value in figures.items()},
    }


def make(root: Path, made_up: MadeUp, n_labels: int) -> None:
    """Fills the warehouse."""
    fill_warehouse(Warehouse(Home(root).create()), made_up, n_labels)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(N_CORES))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(N_CORES))
    os.environ.setdefault("POLARS_MAX_THREADS", str(N_CORES))
    main()
