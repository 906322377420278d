"""Many writers of one lake at once: is anything lost, how often are transactions refused, what does a commit cost?

    python benchmarks/ducklake.py [--writers 8] [--versions 20] [--rows 2000]

On this machine a PostgreSQL (Debian's package) and an S3 server on loopback (moto) are started. Every writer is a
process that replaces its rows of one table, one version after the other, and adds to a table that all of them add the
same rows to. Three lakes: with turns, as the platform writes; without turns, so that DuckLake's own refusal is all that
keeps them apart, and every refused transaction is done again; and with turns, while one writer after another is killed
in its transaction. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias
from unittest.mock import patch

import duckdb
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from saerl_assets.storage import lake
from saerl_assets.storage.home import find_home
from saerl_assets.storage.warehouse import Warehouse
from saerl_assets_tests.servers import BUCKET, Postgres, running_postgres, running_s3, why_no_postgres

N_SHARED = 500
"""Rows that every writer adds to the same growing table; only one of each may be there in the end."""
KILLED_AFTER_SECONDS = 0.2

Results: TypeAlias = "multiprocessing.Queue[Any]"


def rows_of(version: str, n_rows: int) -> pl.DataFrame:
    """Cluster assignments of a version."""
    return pl.DataFrame({"prompt_id": [f"{version}-{row}" for row in range(n_rows)]}).with_columns(
        cluster_id=pl.Series(np.arange(n_rows) % 32), similarity=pl.lit(0.5)
    )


def shared_rows(number: int) -> pl.DataFrame:
    """Dense states that are the same whoever adds them."""
    return pl.DataFrame({"reading_id": f"r{number}", "text_id": [f"t{row}" for row in range(N_SHARED)]}).with_columns(
        mean=pl.lit([1.0]), last=pl.lit([1.0])
    )


def write(
    place: tuple[str, str, str], writer: int, n_versions: int, n_rows: int, *, turns: bool, results: Results
) -> None:
    """One writer: its versions, one after the other; each is replaced once."""
    if not turns:
        patch.object(lake, "taking_turns", lambda *_: nullcontext()).start()
    refused: list[str] = []
    warehouse = Warehouse(find_home(*place), refused.append)
    seconds, failed = [], []
    for number in range(n_versions):
        version = f"w{writer}-v{number + 1}"
        for n in (n_rows // 2, n_rows):
            began = time.perf_counter()
            try:
                warehouse.store("cluster_assignments", rows_of(version, n), version)
                warehouse.store("prompt_states", shared_rows(number))
            except Exception as error:  # noqa: BLE001 - what a writer could not store is a result here
                failed.append(f"{version}: {error}")
            seconds.append((time.perf_counter() - began) / 2)
    conflicts = sum("conflict" in line.lower() for line in refused)
    results.put({"retries": warehouse.n_retries, "conflicts": conflicts, "seconds": seconds, "failed": failed})


def is_killed(place: tuple[str, str, str], ready: Results) -> None:
    """Begins to replace rows that are there, and never ends."""
    with Warehouse(find_home(*place)).writing("being killed", "cluster_assignments") as connection:
        connection.execute("DELETE FROM cluster_assignments")
        connection.execute(
            "INSERT INTO cluster_assignments SELECT 'killed-v1', range::VARCHAR, 1, 0.5 FROM range(5000)"
        )
        ready.put(os.getpid())
        time.sleep(600)


def all_writers(
    place: tuple[str, str, str], settings: argparse.Namespace, *, turns: bool, kills: int = 0
) -> dict[str, Any]:
    """Runs every writer in a process of its own, and says what came of it."""
    spawn = multiprocessing.get_context("spawn")
    results, ready = spawn.Queue(), spawn.Queue()
    Warehouse(find_home(*place).create()).store("cluster_assignments", rows_of("first-v1", 10), "first-v1")
    began = time.perf_counter()
    writers = [
        spawn.Process(
            target=write,
            args=(place, number, settings.versions, settings.rows),
            kwargs={"turns": turns, "results": results},
        )
        for number in range(settings.writers)
    ]
    for writer in writers:
        writer.start()
    for _ in range(kills):
        victim = spawn.Process(target=is_killed, args=(place, ready))
        victim.start()
        ready.get(timeout=300)
        time.sleep(KILLED_AFTER_SECONDS)
        victim.kill()
        victim.join()
    found = [results.get(timeout=1800) for _ in writers]
    for writer in writers:
        writer.join()
    return judged(place, settings, found, time.perf_counter() - began) | {"killed": kills}


def judged(
    place: tuple[str, str, str], settings: argparse.Namespace, found: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """What is in the lake against what was to be there."""
    warehouse = Warehouse(find_home(*place))
    versions = [f"w{writer}-v{number + 1}" for writer in range(settings.writers) for number in range(settings.versions)]
    counts = dict(warehouse.query("SELECT dataset_version, count(*) FROM cluster_assignments GROUP BY ALL").rows())
    states = warehouse.query("SELECT count(*), count(DISTINCT (reading_id, text_id)) FROM prompt_states").row(0)
    commits = [each for writer in found for each in writer["seconds"]]
    lost = [version for version in versions if counts.get(version) != settings.rows]
    return {
        "transactions": 2 * len(commits),
        "lost_versions": len(lost) + (counts.get("first-v1") != 10),
        "unexpected_rows": sum(counts.values()) - settings.rows * len(versions) - 10,
        "doubled_rows": states[0] - states[1],
        "missing_shared_rows": settings.versions * N_SHARED - states[1],
        "failed": [each for writer in found for each in writer["failed"]][:3],
        "n_failed": sum(len(writer["failed"]) for writer in found),
        "conflicts": sum(writer["conflicts"] for writer in found),
        "retries": sum(writer["retries"] for writer in found),
        "seconds": round(seconds, 1),
        "store_seconds_median": round(float(np.median(commits)), 3),
        "store_seconds_p95": round(float(np.percentile(commits, 95)), 3),
    }


@contextmanager
def servers() -> Iterator[Postgres]:
    """Both servers; their secrets are in this process's environment and go to the writers with it."""
    with running_postgres() as postgres, running_s3() as variables:
        os.environ.update(variables, PGPASSWORD=postgres.password)
        yield postgres


def main() -> None:
    """Runs the three and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    settings = parser.parse_args()
    if why := why_no_postgres():
        sys.exit(why)
    outcome: dict[str, Any] = {"writers": settings.writers, "versions": settings.versions, "rows": settings.rows}
    with servers() as postgres, tempfile.TemporaryDirectory() as folder:
        for name, turns, kills in (("turns", True, 0), ("no_turns", False, 0), ("kills", True, settings.kills)):
            place = (f"{folder}/{name}", f"ducklake:postgres:{postgres.database(name)}", f"s3://{BUCKET}/{name}")
            outcome[name] = all_writers(place, settings, turns=turns, kills=kills)
            print(f"{name:9}", json.dumps(outcome[name]), flush=True)
    outcome["nothing_lost"] = not any(
        outcome[name][what]
        for name in ("turns", "kills")
        for what in ("lost_versions", "unexpected_rows", "doubled_rows", "missing_shared_rows", "n_failed")
    )
    outcome["duckdb"] = duckdb.__version__
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
