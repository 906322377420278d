"""How time, memory and disk grow with the prompts, stage by stage, and what more of them would need.

    python benchmarks/scale.py [--sizes 10000 100000 1000000] [--latents 32768] [--labels 10000] [--clusters 64]

Makes up sparse features for each number of prompts (about 700 active ones a prompt, see made_up_features) as the
shards that an extraction leaves; that is not measured. Then a process of its own takes them through the rest of a
version, with the settings that a spec has by default, in a temporary home:

    warehouse   prompts, labels and features from shards into the tables
    clusters    k chosen by itself, prompts clustered, assignments stored
    difficulty  a proxy learned from the labelled prompts, every prompt scored, scores stored
    quality     a probe learned from as many outcomes, every prompt scored, scores stored
    planner     both planners and every control arm, the manifest named by its digest and stored
    exports     the exported arm for TRL, verl and as Parquet

Every stage reads what it needs from the warehouse itself. Beside the seconds stand those of the processors, which is
what the exponents are of: machines are shared, and a clock counts what others do. An exponent of 1 is linear: twice the
prompts, twice the work. It is taken between the two largest sizes, where constant parts weigh least, and stands beside
the one fitted over all sizes; stages below a second at the largest size have none.

The last line is one JSON object, of the largest size scaled to a million prompts: `minutes_per_million` on the clock,
`processor_minutes_per_million`, `peak_rss_gb`, `disk_gb` (the home when all is done) and `worst_exponent` with its
stage. Shards are on the disk beside the tables for a while, so about twice `disk_gb` must be free.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from made_up_features import ENCODER_ID, VERSION, MadeUp, store_tables, write_shards

from saerl_assets.domain.batches import plan_manifest
from saerl_assets.domain.candidates import PlannedOn, gather_candidates
from saerl_assets.domain.clusters import assignment_frame, fit_clusters
from saerl_assets.domain.difficulty import score_difficulty
from saerl_assets.domain.predictors import PooledFeatures
from saerl_assets.domain.quality import train_probe
from saerl_assets.domain.quality_filter import score_quality
from saerl_assets.domain.spec import VersionSpec
from saerl_assets.storage.feature_store import EncodedLayer, WarehouseFeatures
from saerl_assets.storage.home import Home
from saerl_assets.storage.shards import ShardStore
from saerl_assets.storage.warehouse import Warehouse
from saerl_assets.trainers.export import write_export
from saerl_assets.trainers.formats import ExportRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

SEED = 0
N_CORES = 2
TRAINERS = ("trl", "verl", "parquet")
SPEC = VersionSpec.model_validate({"key": VERSION, "data": {"source": "path:made-up.jsonl", "prompt": "prompt"}})
MIN_SECONDS = 1.0
"""Of processors at the largest size; below, an exponent says nothing."""


@dataclass
class Measured:
    """What one size took."""

    n_prompts: int
    seconds: dict[str, float] = field(default_factory=dict)
    processor_seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_gb: dict[str, float] = field(default_factory=dict)
    disk_gb: float = 0.0

    def run(self, stage: str, work: Callable[[], object]) -> None:
        """Runs one stage and tells of it."""
        started, processor = time.perf_counter(), time.process_time()
        work()
        self.seconds[stage] = time.perf_counter() - started
        self.processor_seconds[stage] = time.process_time() - processor
        self.peak_rss_gb[stage] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(
            f"{self.n_prompts:>11,}  {stage:12}{self.seconds[stage]:9.1f} s{self.processor_seconds[stage]:9.1f} s of "
            f"processors{self.peak_rss_gb[stage]:8.2f} GB peak",
            flush=True,
        )


class Version:
    """One made-up version in a home, taken through its stages."""

    def __init__(self, root: Path, made_up: MadeUp, n_labels: int) -> None:
        self.home, self.made_up, self.n_labels = Home(root), made_up, n_labels
        self.warehouse = Warehouse(self.home)

    def store(self) -> None:
        """Prompts, labels and features."""
        store_tables(self.warehouse, self.made_up, self.n_labels)

    def cluster(self) -> None:
        """Assignments by the default settings."""
        features, _ = self._features()
        clustered = fit_clusters(features, SPEC.clusters, SEED)
        self.warehouse.store("cluster_assignments", assignment_frame(clustered, features), VERSION)

    def score_difficulty(self) -> None:
        """Difficulty by the default settings."""
        features, prompts = self._features()
        labels = self.warehouse.rows("labels", dataset_version=VERSION)
        found = score_difficulty(features, prompts, labels, SPEC.difficulty, SEED)
        self.warehouse.store("difficulty_scores", found.scores, VERSION)

    def score_quality(self) -> None:
        """Probe and scores by the default settings."""
        features, prompts = self._features()
        labels = self.warehouse.rows("labels", dataset_version=VERSION)
        predictor = PooledFeatures(features, "max", "sae_max")
        probe = train_probe(predictor, prompts, labels, SPEC.quality, SEED)
        scores = score_quality(predictor, prompts, probe, SPEC.quality)
        self.warehouse.store("quality_scores", scores, VERSION)

    def plan(self) -> None:
        """The manifest of all arms."""
        names = ("prompts", "cluster_assignments", "difficulty_scores", "quality_scores")
        found = {name: self.warehouse.rows(name, dataset_version=VERSION) for name in names}
        empty = ("near_duplicates", "contamination", "control_signals")
        found |= {name: self.warehouse.rows(name, dataset_version=VERSION) for name in empty}
        planned = plan_manifest(gather_candidates(PlannedOn(**found), SPEC), SPEC.batches, key=VERSION, seed=SEED)
        self.warehouse.store("batch_manifest", planned.manifest, VERSION)
        self.warehouse.store("deferred_prompts", planned.deferred, VERSION)

    def export(self) -> None:
        """The exported arm for several trainers."""
        columns = ["prompt_id", "messages", "is_chat", "answer", "topic", "extra"]
        prompts = self.warehouse.rows("prompts", columns, dataset_version=VERSION)
        rows = self.warehouse.rows("batch_manifest", dataset_version=VERSION, arm=SPEC.batches.planner)
        rows = rows.sort("epoch", "step", "slot").join(prompts, on="prompt_id", how="left", maintain_order="left")
        request = ExportRequest(
            rows=rows,
            manifest_id=str(rows["manifest_id"][0]),
            key=VERSION,
            arm=SPEC.batches.planner,
            batch_size=SPEC.batches.batch_size,
            spec_digest="0" * 64,
            digests={},
            spec=SPEC.model_dump(mode="json"),
            pairs=pl.DataFrame(),
        )
        for trainer in TRAINERS:
            write_export(trainer, request, self.home.exports / trainer)

    def _features(self) -> tuple[WarehouseFeatures, pl.DataFrame]:
        prompts = self.warehouse.rows("prompts", dataset_version=VERSION)
        layers = [EncodedLayer(ENCODER_ID, 0, self.made_up.n_latents)]
        return WarehouseFeatures(self.warehouse, prompts, layers), prompts


def measure(root: Path, made_up: MadeUp, n_labels: int, done: Connection) -> None:
    """All stages of one size; what they took goes to `done`."""
    measured = Measured(made_up.n_prompts)
    version = Version(root, made_up, n_labels)
    measured.run("warehouse", version.store)
    ShardStore(version.home.work(VERSION)).remove()
    measured.run("clusters", version.cluster)
    measured.run("difficulty", version.score_difficulty)
    measured.run("quality", version.score_quality)
    measured.run("planner", version.plan)
    measured.run("exports", version.export)
    measured.disk_gb = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) / 1e9
    done.send(measured)


def make(root: Path, made_up: MadeUp) -> None:
    """The shards that an extraction would leave."""
    write_shards(Home(root).create(), made_up)


def measure_size(n_prompts: int, arguments: argparse.Namespace) -> Measured:
    """One size, made up and measured in processes of their own."""
    made_up = MadeUp(n_prompts, arguments.latents, arguments.clusters)
    spawn = multiprocessing.get_context("spawn")
    with TemporaryDirectory(prefix="saerl-scale-", dir=arguments.folder) as folder:
        started = time.perf_counter()
        maker = spawn.Process(target=make, args=(Path(folder), made_up))
        maker.start()
        maker.join()
        print(f"{n_prompts:>11,}  made up in {time.perf_counter() - started:,.0f} s", flush=True)
        receiver, sender = spawn.Pipe(duplex=False)
        worker = spawn.Process(target=measure, args=(Path(folder), made_up, arguments.labels, sender))
        worker.start()
        sender.close()
        try:
            found: Measured = receiver.recv()
        except EOFError:
            raise SystemExit(f"the process that measured {n_prompts:,} prompts ended early; see above") from None
        worker.join()
        return found


def exponents(sizes: Sequence[Measured]) -> dict[str, tuple[float, float]]:
    """By stage the exponent between the two largest sizes and the one fitted over all; stages too short have none."""
    found = {}
    last, before = sizes[-1], sizes[-2]
    step = math.log(last.n_prompts / before.n_prompts)
    for stage, seconds in last.processor_seconds.items():
        if seconds < MIN_SECONDS:
            continue
        local = math.log(seconds / max(before.processor_seconds[stage], 1e-3)) / step
        points = [(math.log(one.n_prompts), math.log(max(one.processor_seconds[stage], 1e-3))) for one in sizes]
        x, y = np.array(points).T
        found[stage] = (local, float(np.polyfit(x, y, 1)[0]))
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--latents", type=int, default=32_768)
    parser.add_argument("--labels", type=int, default=10_000, help="labelled prompts, of each of two labels")
    parser.add_argument("--clusters", type=int, default=64, help="planted ones")
    parser.add_argument("--folder", type=Path, help="make the temporary homes below this one")
    arguments = parser.parse_args()
    sizes = [measure_size(n_prompts, arguments) for n_prompts in sorted(set(arguments.sizes))]
    largest, millions = sizes[-1], sizes[-1].n_prompts / 1e6
    grown = exponents(sizes) if len(sizes) > 1 else {}
    print(f"\n{'stage':12}{'s a million':>13}{'of processors':>15}{'exponent':>10}{'over all':>10}")
    for stage, seconds in largest.seconds.items():
        local, fitted = grown.get(stage, (math.nan, math.nan))
        work = largest.processor_seconds[stage] / millions
        print(f"{stage:12}{seconds / millions:13.1f}{work:15.1f}{local:10.2f}{fitted:10.2f}")
    worst = max(grown, key=lambda stage: grown[stage][0], default=None)
    print()
    print(
        json.dumps(
            {
                "minutes_per_million": round(sum(largest.seconds.values()) / 60 / millions, 2),
                "processor_minutes_per_million": round(sum(largest.processor_seconds.values()) / 60 / millions, 2),
                "peak_rss_gb": round(max(largest.peak_rss_gb.values()), 3),
                "disk_gb": round(largest.disk_gb / millions, 2),
                "worst_exponent": None if worst is None else round(grown[worst][0], 3),
                "worst_stage": worst,
                "exponents": {stage: round(local, 3) for stage, (local, _) in grown.items()},
                "prompts": [one.n_prompts for one in sizes],
                "seconds": {one.n_prompts: {name: round(s, 1) for name, s in one.seconds.items()} for one in sizes},
                "peak_rss_gb_by_size": {one.n_prompts: round(max(one.peak_rss_gb.values()), 3) for one in sizes},
                "disk_gb_by_size": {one.n_prompts: round(one.disk_gb, 3) for one in sizes},
            }
        )
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(N_CORES))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(N_CORES))
    os.environ.setdefault("POLARS_MAX_THREADS", str(N_CORES))
    main()
