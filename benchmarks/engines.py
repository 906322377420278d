"""What several processes and a Ray cluster cost and bring, against one process, on the same cores.

    python benchmarks/engines.py [--prompts 384] [--processes 2] [--rounds 3]

The demo's model reads prompts of the demo with the SAE of `examples/demo/small.toml`, through the very function that
the asset calls: alone in one process with all cores, in processes of this machine, and in as many actors of a Ray
cluster that is started for it. Every engine reads the same shards; rounds go through the engines in turn.

Two figures of each: seconds until the first shard is written, which is mostly processes starting and models loading,
and tokens a second between the first shard and the last. A ratio is the median over the rounds. Rows are held to be the
same: texts and tokens exactly, values within a relative 1e-3, and active features but for one row in a hundred. More
threads add up in another order, and of two latents that are nearly as large the other may then be the last of the k.

The last line is one JSON object: `processes_of_alone`, `ray_of_alone` and `ray_of_processes` are ratios of tokens a
second, `ray_seconds_to_first_shard` and the others' are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch

from saerl_assets.automation.runs import add_partition, open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.domain.spec import parse_spec
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.extraction import extract
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.reading import Reading

KEY = "small-v1"
DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo"
MAX_OTHER = 0.01
UP_TO_READING = ["versions", "label_observations", "prompts", "sae_weights", "sae_health", "control_saes"]


@dataclass
class Told:
    """What one engine took in each round."""

    first: list[float] = field(default_factory=list)
    """Seconds until the first shard."""
    speed: list[float] = field(default_factory=list)
    """Tokens a second after it."""


def make_home(folder: Path, n_prompts: int) -> HomeResource:
    """A home with one version, up to what reading needs."""
    home = HomeResource(root=str(folder / "home"))
    text = (DEMO / "small.toml").read_text(encoding="utf-8").replace("limit = 300", f"limit = {n_prompts}")
    home.catalog().register(parse_spec(text, str(DEMO / "small.toml")), DEMO)
    with open_instance(home.open().dagster) as instance:
        add_partition(instance, KEY)
    done = run_version(home, KEY, only=UP_TO_READING)
    if not done.success:
        raise SystemExit(done.failure)
    return home


def read(home: HomeResource, compute: ComputeResource, told: Told) -> pl.DataFrame:
    """Reads everything once; gives its rows."""
    reading = Reading(home, compute, KEY, lambda _words: None)
    reading.forget()  # also the activations that the SAE was measured on
    frames = (home.warehouse().rows(name, dataset_version=KEY) for name in ("prompts", "sae_weights", "control_saes"))
    prompts, weights, controls = frames
    started, marks = time.perf_counter(), list[tuple[float, int]]()

    def note(done: int, total: int, *, unit: str, note: str = "") -> None:  # noqa: ARG001 - as `Progress` is called
        marks.append((time.perf_counter() - started, done))

    done = extract(reading, prompts, weights, controls, note)
    (first, n_first), (last, n_last) = marks[0], marks[-1]
    told.first.append(first)
    told.speed.append((n_last - n_first) / (last - first))
    rows = pl.concat([pl.read_parquet(file) for file in done.features.files]).sort("text_id", "encoder_id")
    reading.forget()
    return rows


def hold_same(found: pl.DataFrame, expected: pl.DataFrame) -> int:
    """Raises where rows differ by more than the order of sums; gives how many texts have other active features."""
    if not found.select("text_id", "encoder_id", "n_tokens").equals(
        expected.select("text_id", "encoder_id", "n_tokens")
    ):
        raise SystemExit("other texts or tokens were read")
    same = found["feature_ids"] == expected["feature_ids"]
    if (n_other := int((~same).sum())) > MAX_OTHER * found.height:
        raise SystemExit(f"{n_other} of {found.height} texts have other active features")
    for name in ("max", "sum"):
        one, other = (rows.filter(same)[name].explode().to_numpy() for rows in (found, expected))
        np.testing.assert_allclose(one, other, rtol=1e-3)
    return n_other


def main() -> None:
    """Runs all engines in turn and tells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=384)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    engines = {
        name: ComputeResource(device="cpu", texts_per_shard=32, engine=engine, workers=n_workers)
        for name, engine, n_workers in (
            ("alone", "local", 1),
            ("processes", "local", asked.processes),
            ("ray", "ray", asked.processes),
        )
    }
    told = {name: Told() for name in engines}
    with TemporaryDirectory() as folder:
        home = make_home(Path(folder), asked.prompts)
        expected: pl.DataFrame | None = None
        for number in range(asked.rounds):
            for name, compute in engines.items():
                rows = read(home, compute, told[name])
                expected = rows if expected is None else expected
                n_other = hold_same(rows, expected)
                print(
                    f"round {number + 1}  {name:10}{told[name].first[-1]:8.1f} s to the first shard"
                    f"{told[name].speed[-1]:10,.0f} tokens/s, {n_other} of {rows.height} rows have other features",
                    flush=True,
                )

    def ratio(above: str, below: str) -> float:
        pairs = zip(told[above].speed, told[below].speed, strict=True)
        return round(statistics.median(one / other for one, other in pairs), 3)

    found = {
        "processes_of_alone": ratio("processes", "alone"),
        "ray_of_alone": ratio("ray", "alone"),
        "ray_of_processes": ratio("ray", "processes"),
        **{f"{name}_seconds_to_first_shard": round(statistics.median(each.first), 1) for name, each in told.items()},
        "threads_alone": torch.get_num_threads(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
