"""Whether labels from a policy's own answers to a few prompts say how hard the others are for it.

    python benchmarks/outcomes.py --recorded
    python benchmarks/outcomes.py [--policy path:DIR] [--tasks FILE] [--template plain] [--max-new-tokens 32]

It goes the way that a user goes: a version without any label, a sample of every cluster of its prompts answered by the
policy, the scores folded into the labels `correct` and `difficulty`, and the difficulty proxy and the quality probe
learned from these alone. Then the proxy is held against the pass rate that more rollouts give for *other* prompts.

`--recorded` needs no policy: `examples/demo/rollouts.parquet` holds eight answers of the demo's model to each of the
demo's first 1,000 prompts. Those to a sample of `--prompts` become the labels, those to the others are the truth. Five
samples are drawn, each with its own seed. Without it, the policy answers `--prompts` prompts `--rollouts` times in a
first version, and in a child of it, which takes these answers over, `--truth-prompts` more `--truth-rollouts` times.

Measured is Spearman's correlation with the failure rate, with the percentiles of a bootstrap over the prompts, beside
that of the prompt's length and of the summed activation, which need no label, and of the mean failure rate of the
labelled prompts of the same task family, which needs to know the families. The truth is noisy: `ceiling` is what a
score that knows the true pass rates exactly would reach, estimated from halves of the rollouts (Spearman-Brown). The
probe's AUROC is that of the share of right answers.

The demo's model reads the prompts and an SAE is trained on them: minutes on two idle cores. With `--home .saerl --base
demo-v1`, after `make demo`, the SAE is taken from there, and with `--recorded` what was read. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saerl_assets.automation.runs import add_partition, open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.domain.agreement import auroc, spearman
from saerl_assets.domain.outcomes import choose_prompts
from saerl_assets.domain.spec import ReaderSpec, VersionSpec, parse_spec
from saerl_assets.resources.home import HomeResource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

DEMO = Path(__file__).parents[1] / "examples" / "demo"
UP_TO_CLUSTERS = ["versions", "prompts", "sae_weights", "sae_health", "control_saes", "prompt_features", "clusters"]
LEARNED = ["rollouts", "labels", "difficulty_scores", "quality_probe", "quality_scores"]
N_BOOTSTRAP = 2_000
N_SAMPLES = 5


@dataclass(frozen=True)
class Other:
    """Prompts of which the version knew nothing, with what it says of them and what is true."""

    failure_rate: Doubles
    """[n] share of wrong answers."""
    n_rollouts: Doubles
    proxy: Doubles
    magnitude: Doubles
    n_tokens: Doubles
    quality: Doubles
    family: Doubles
    """[n] mean failure rate of the labelled prompts of its family; of all of them where the family has none."""


def main() -> None:
    """Runs the command."""
    args = _arguments()
    started = time.monotonic()
    home = HomeResource(root=args.home or str(Path(tempfile.mkdtemp(prefix="saerl-outcomes-")) / "home"))
    others = _recorded(home, args) if args.recorded else _asked(home, args)
    figures = _figures(others, args) | {"seconds": round(time.monotonic() - started)}
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(json.dumps(figures))


def _recorded(home: HomeResource, args: argparse.Namespace) -> list[tuple[Other, float]]:
    """Labels from the recorded rollouts of a sample, truth from those of the others; with the ceiling of each."""
    rollouts = pl.read_parquet(DEMO / "rollouts.parquet")
    data = {"limit": home.version(args.base).spec.data.limit or 2000} if args.base else {"limit": args.limit}
    base = args.base or "recorded-v1"
    if not args.base:
        _register(home, DEMO, _spec(base, args, data=data))
        _run(home, base, UP_TO_CLUSTERS)
    warehouse = home.warehouse()
    prompts, clusters = (warehouse.rows(name, dataset_version=base) for name in ("prompts", "cluster_assignments"))
    asked = pl.Series([json.loads(messages)[0]["content"] for messages in prompts["messages"]], dtype=pl.String)
    known = rollouts.join(prompts.select("prompt_id", prompt=asked), on="prompt", how="inner")
    found = []
    for sample in range(N_SAMPLES):
        recorded = prompts.join(known, on="prompt_id", how="semi")
        chosen = choose_prompts(recorded, clusters, n_prompts=args.prompts, seed=sample, needs_answer=True)
        key = f"recorded{args.prompts}-{sample}-v1"
        file = home.open().root / f"{key}.parquet"
        labelled = known.join(chosen, on="prompt_id", how="semi").filter(pl.col("rollout") < args.rollouts)
        labelled.select("prompt", correct="score", difficulty=1 - pl.col("score")).write_parquet(file)
        labels = {name: {"column": name, "source": f"path:{file}"} for name in ("correct", "difficulty")}
        _register(home, DEMO, _spec(key, args, parent=base, data=data, labels=labels))
        _run(home, key, [*UP_TO_CLUSTERS, *LEARNED])
        found.append(_other(home, key, known.join(chosen, on="prompt_id", how="anti"), chosen["prompt_id"]))
    return found


def _asked(home: HomeResource, args: argparse.Namespace) -> list[tuple[Other, float]]:
    """The policy answers a sample, and in a child version more prompts more often."""
    tasks = Path(args.tasks).resolve()
    outcomes = {
        "policy": args.policy,
        "verifier": "reasoning_gym",
        "n_prompts": args.prompts,
        "n_rollouts": args.rollouts,
        "template": args.template,
        "max_new_tokens": args.max_new_tokens,
    }
    data = {"source": f"gym:{tasks}", "limit": args.limit}
    base = {"parent": args.base} if args.base else {}
    _register(home, Path.cwd(), _spec("asked-v1", args, data=data, outcomes=outcomes, **base))
    _run(home, "asked-v1", [*UP_TO_CLUSTERS, *LEARNED])
    more = {"n_prompts": args.prompts + args.truth_prompts, "n_rollouts": args.truth_rollouts}
    _register(home, Path.cwd(), _spec("asked-v2", args, parent="asked-v1", data=data, outcomes=outcomes | more))
    _run(home, "asked-v2", [*UP_TO_CLUSTERS, "rollouts"])
    warehouse = home.warehouse()
    before, truth = (warehouse.rows("rollouts", dataset_version=key) for key in ("asked-v1", "asked-v2"))
    others = truth.join(before, on="prompt_id", how="anti").rename({"sample": "rollout"})
    return [_other(home, "asked-v1", others, before["prompt_id"].unique())]


def _other(home: HomeResource, key: str, rollouts: pl.DataFrame, labelled: pl.Series) -> tuple[Other, float]:
    """What a version says of prompts, beside their rollouts, and how well any score could do."""
    warehouse = home.warehouse()
    scores, quality, prompts = (
        warehouse.rows(name, dataset_version=key) for name in ("difficulty_scores", "quality_scores", "prompts")
    )
    even = pl.col("rollout") % 2 == 0
    truth = rollouts.group_by("prompt_id").agg(
        rate=pl.col("score").mean(),
        n=pl.len(),
        first=pl.col("score").filter(even).mean(),
        second=pl.col("score").filter(~even).mean(),
    )
    rows = (
        truth.join(scores.select("prompt_id", "proxy", "magnitude"), on="prompt_id")
        .join(quality.select("prompt_id", "quality"), on="prompt_id")
        .join(prompts.select("prompt_id", "n_tokens", "topic"), on="prompt_id")
        .join(_by_family(home, key, prompts, labelled), on="topic", how="left")
        .with_columns(pl.col("family").fill_null(pl.col("family").mean()))
        .sort("prompt_id")
    )
    if rows["proxy"].null_count():
        words = warehouse.rows("difficulty_proxy", dataset_version=key)["explanation"]
        raise SystemExit(f"No proxy was learned: {' '.join(words.drop_nulls())}")

    def of(name: str) -> Doubles:
        return rows[name].cast(pl.Float64).to_numpy()

    half = spearman(of("first"), of("second")) or 0.0
    ceiling = float(np.sqrt(max(2 * half / (1 + half), 0.0)))
    columns = ("n", "proxy", "magnitude", "n_tokens", "quality", "family")
    found = Other(1.0 - of("rate"), *(of(name) for name in columns))
    return found, ceiling


def _by_family(home: HomeResource, key: str, prompts: pl.DataFrame, labelled: pl.Series) -> pl.DataFrame:
    """By topic the mean difficulty of the labelled training prompts."""
    labels = home.warehouse().rows("labels", dataset_version=key).filter(label="difficulty")
    known = labels.filter(pl.col("prompt_id").is_in(labelled.implode()))
    train = prompts.filter(split="train").select("prompt_id", "topic")
    return known.join(train, on="prompt_id").group_by("topic").agg(family=pl.col("value").mean())


def _figures(others: Sequence[tuple[Other, float]], args: argparse.Namespace) -> dict[str, Any]:
    """The first sample with its intervals, and the mean over all."""
    first, ceiling = others[0]
    rng = np.random.default_rng(0)
    n = len(first.proxy)
    draws = [rng.integers(0, n, n) for _ in range(N_BOOTSTRAP)]
    figures: dict[str, Any] = {
        "policy": "recorded" if args.recorded else args.policy.partition("#")[0],
        "labelled_prompts": args.prompts,
        "rollouts": args.rollouts,
        "other_prompts": n,
        "samples": len(others),
        "mean_pass_rate": round(float(1 - first.failure_rate.mean()), 3),
        "ceiling": round(ceiling, 3),
    }
    for name in ("proxy", "family", "magnitude", "n_tokens"):
        score = getattr(first, name)
        boot = [spearman(score[rows], first.failure_rate[rows]) or 0.0 for rows in draws]
        low, high = np.percentile(boot, [2.5, 97.5])
        every = [spearman(getattr(other, name), other.failure_rate) or 0.0 for other, _ in others]
        figures |= {
            f"{name}_spearman": round(every[0], 3),
            f"{name}_low": round(float(low), 3),
            f"{name}_high": round(float(high), 3),
            f"{name}_mean": round(float(np.mean(every)), 3),
            f"{name}_range": [round(min(every), 3), round(max(every), 3)],
        }
    for name in ("family", "n_tokens"):
        differences = [
            (spearman(first.proxy[rows], first.failure_rate[rows]) or 0.0)
            - (spearman(getattr(first, name)[rows], first.failure_rate[rows]) or 0.0)
            for rows in draws
        ]
        low, high = np.percentile(differences, [2.5, 97.5])
        figures[f"proxy_minus_{name}"] = [round(float(low), 3), round(float(high), 3)]
    areas = [auroc(other.quality, 1 - other.failure_rate, other.n_rollouts) for other, _ in others]
    return figures | {"probe_auroc": [None if area is None else round(area, 3) for area in areas]}


def _spec(key: str, args: argparse.Namespace, **changes: dict[str, Any] | str) -> VersionSpec:
    """The demo's spec in small, without labels."""
    data = {"source": "gym:tasks.toml", "prompt": "prompt", "answer": "answer", "topic": "family"}
    more = changes.pop("data", {})
    document = {
        "key": key,
        "seed": args.seed,
        "data": data | (dict(more) if isinstance(more, dict) else {}),
        "sae": {"source": "auto", "n_latents": 2048, "k": 32, "training_tokens": args.training_tokens},
        "evidence": {"random_sae": False},
        "difficulty": {"min_labels": 20},
        "quality": {"min_labels": 20},
        **changes,
    }
    return parse_spec("\n".join(_toml(document)), key)


def _toml(table: dict[str, Any], path: str = "") -> list[str]:
    """Nested tables as TOML; plain values are written as JSON, which TOML reads alike."""
    lines = [f"[{path}]"] if path else []
    lines += [f"{name} = {json.dumps(value)}" for name, value in table.items() if not isinstance(value, dict)]
    for name, value in table.items():
        if isinstance(value, dict):
            lines += _toml(value, f"{path}.{name}" if path else name)
    return lines


def _register(home: HomeResource, folder: Path, spec: VersionSpec) -> None:
    home.catalog().register(spec, folder)
    with open_instance(home.open().dagster) as instance:
        add_partition(instance, spec.key)


def _run(home: HomeResource, key: str, only: list[str]) -> None:
    print(f"{key}: {', '.join(only)}", flush=True)
    done = run_version(home, key, only=only)
    if not done.success:
        raise SystemExit(done.failure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", action="store_true", help="the recorded rollouts of the demo, without a policy")
    parser.add_argument("--policy", default=ReaderSpec().model, help="a model's source (default: the demo's model)")
    parser.add_argument("--tasks", default=str(DEMO / "tasks.toml"), help="a file of tasks (default: the demo's)")
    parser.add_argument("--limit", type=int, default=1000, help="prompts of the version (default: 1000)")
    parser.add_argument("--prompts", type=int, default=200, help="prompts that are labelled (default: 200)")
    parser.add_argument("--rollouts", type=int, default=8, help="answers to each (default: 8)")
    parser.add_argument("--truth-prompts", type=int, default=300, help="other prompts that are answered (default: 300)")
    parser.add_argument("--truth-rollouts", type=int, default=16, help="answers to each of them (default: 16)")
    parser.add_argument("--template", choices=("plain", "chat"), default="chat", help="default: chat")
    parser.add_argument("--max-new-tokens", type=int, default=96, help="tokens of an answer at most (default: 96)")
    parser.add_argument("--training-tokens", type=int, default=200_000, help="of the SAE (default: 200000)")
    parser.add_argument("--seed", type=int, default=7, help="of the versions (default: 7)")
    parser.add_argument("--home", help="the home to work in, to go on from there (default: a temporary one)")
    parser.add_argument("--base", metavar="KEY", help="a version in that home whose SAE is taken over")
    return parser.parse_args()


if __name__ == "__main__":
    main()
