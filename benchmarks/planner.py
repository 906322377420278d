"""How long the planner takes, and how much memory, for a million prompts in a thousand clusters.

    python benchmarks/planner.py [--prompts 1000000] [--clusters 1000] [--repeats 3]

Prints a table: each arm's order alone, then the whole manifest of one epoch with all arms, deferred prompts, frames
and digest, for both planners and all curricula, and holding a manifest against its digest. Times are the best of
the repeats, on the clock and of the processors (of all threads: what a machine that does nothing else needs at
most). Memory is the peak of the process, made-up prompts included. The last line is one JSON object;
`seconds_per_million` is the clock's time for a whole manifest, all arms, with the planner and curriculum that take
longest, and `seconds_per_million_default` with those of the default spec.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.arms import PLANNERS, Members, order_arm
from saerl_assets.domain.batches import plan_manifest
from saerl_assets.domain.manifests import verify_manifest
from saerl_assets.domain.spec import BatchSpec

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "benchmark-v1"


def made_up_candidates(n_prompts: int, n_clusters: int) -> pl.DataFrame:
    """Prompts in clusters of very different sizes, ids in no order, one in twenty filtered out."""
    rng = np.random.default_rng(0)
    weight = rng.lognormal(0.0, 1.0, n_clusters)
    return pl.DataFrame(
        {
            "prompt_id": [f"{number:032x}" for number in rng.permutation(n_prompts)],
            "cluster_id": rng.choice(n_clusters, n_prompts, p=weight / weight.sum()).astype(np.uint32),
            "difficulty": rng.normal(size=n_prompts),
            "n_tokens": rng.integers(5, 500, n_prompts).astype(np.uint32),
            "kept": rng.random(n_prompts) > 0.05,
            "quality": rng.random(n_prompts),
        }
    )


def best_seconds(repeats: int, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of the processors, each of its fastest repeat."""
    clock, processors = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - start)
        processors.append(time.process_time() - start_cpu)
    return min(clock), min(processors)


def tell(name: str, seconds: tuple[float, float]) -> None:
    """One line of the table."""
    print(f"{name:38}{seconds[0]:9.2f}{seconds[1]:11.2f}", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    candidates = made_up_candidates(arguments.prompts, arguments.clusters)
    default = BatchSpec()
    members = Members(
        cluster=candidates["cluster_id"].to_numpy().astype(np.int64),
        difficulty=candidates["difficulty"].to_numpy(),
        n_tokens=candidates["n_tokens"].to_numpy().astype(np.int64),
    )
    print(f"{arguments.prompts:,} prompts, {arguments.clusters:,} clusters, batches of {default.batch_size}\n")
    print(f"{'':38}{'seconds':>9}{'processor':>11}")
    for arm in sorted({*PLANNERS, *default.controls}):
        tell(f"order of {arm}", best_seconds(arguments.repeats, partial(order_arm, arm, members, default, 0)))
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for planner in PLANNERS:
        for curriculum in ("none", "sorted", "staged"):
            spec = BatchSpec.model_validate({"planner": planner, "curriculum": curriculum})
            work = partial(plan_manifest, candidates, spec, key=KEY, seed=0)
            found[planner, curriculum] = best_seconds(arguments.repeats, work)
            tell(f"whole manifest, {planner}, {curriculum}", found[planner, curriculum])
    plan = plan_manifest(candidates, default, key=KEY, seed=0)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    check = partial(verify_manifest, plan.manifest, plan.deferred, key=KEY)
    tell("manifest held against its digest", best_seconds(arguments.repeats, check))
    n_arms = plan.manifest["arm"].n_unique()
    print(f"\n{plan.manifest.height:,} rows in {n_arms} arms, {plan.deferred.height:,} deferred\n")
    millions = arguments.prompts / 1e6
    slowest = max(found.values())
    print(
        json.dumps(
            {
                "seconds_per_million": round(slowest[0] / millions, 3),
                "processor_seconds_per_million": round(max(cpu for _, cpu in found.values()) / millions, 3),
                "seconds_per_million_default": round(found[default.planner, default.curriculum][0] / millions, 3),
                "peak_rss_gb": round(peak_bytes / 1e9, 3),
                "prompts": arguments.prompts,
                "clusters": arguments.clusters,
                "arms": n_arms,
            }
        )
    )


if __name__ == "__main__":
    main()
