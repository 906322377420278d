"""Which order trains a policy in the fewest steps: a search over the planner's settings, and a confirmation.

    python benchmarks/orders.py                             the search: every order that is no control, two seeds
    python benchmarks/orders.py --confirm "contested half, shuffled"
                                                            one of them and its controls, anew, five fresh seeds

Each order is an arm of a version that differs from `--spec` in what the table `ORDERS` says and in nothing else: the
same prompts, reader and SAE, the same labels, the same number of steps. Its trainings are those of `saerl trial`, each
from the policy's own weights, on held-out prompts that no order has. `shuffle` is trained once and is what all are held
against, seed by seed.

The rule, fixed before the first training: the winner of the search is the order with the highest accuracy averaged over
the evaluations (a curve's height, less noisy than where it crosses a target), among those that a user can have: an
order by the label itself is a ceiling. Being the best of many on two seeds, it is worth what `--confirm` says of it:
under another seed of the version, so that SAE, clusters, labels and orders are drawn anew, and with trainings whose
seeds the search has not used. The prompts are the same, and so is which of them are held out. Beside it is trained
what shares its name before the comma and tells where a difference comes from: the same order without the SAE (dense
state), with random clusters, without clusters, with as many prompts left out at random, and by the label itself, as far
as `ORDERS` has them.

Results are kept in `--home`: interrupted, the same command goes on, several may share the work, and an order that is
added costs its own trainings. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.automation.runs import add_partition, open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.domain.progress import silent
from saerl_assets.domain.spec import VersionSpec
from saerl_assets.domain.trial import BASELINE, EVALUATION_SCHEMA, summarise_trial
from saerl_assets.report.training_trial import figure_trial_evaluations
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.progress import clock
from saerl_assets.resources.trials import open_trial
from saerl_assets.storage.locks import is_locked, locked
from saerl_assets.trial.runs import Trial, read_evaluations, run_trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPEC = Path(__file__).parents[1] / "examples" / "trial" / "trial.toml"

Changes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Order:
    """An arm of a version that differs from the spec's in some settings."""

    arm: str
    changes: Changes = field(default_factory=dict)


HARD_FIRST: Changes = {"difficulty": {"label": "correct"}}
CONTESTED_FIRST: Changes = {"difficulty": {"label": "agreement"}}


def _contested_half(**how: str) -> Changes:
    """The half of the prompts whose answers are expected to be scored least alike, each seen twice in as many steps."""
    return {"difficulty": {"label": "agreement", "max_rank": 0.5, **how}, "batches": {"epochs": 2}}


CONTESTED_HALF = _contested_half()
FILTERED: Changes = {
    "quality": {"filter": "share", "drop_fraction": 0.2},
    "batches": {"epochs": 2},
    "trial": {"n_steps": 80},
}
"""Without the fifth that is least expected to be answered right; steps that this leaves are of a second epoch."""

ORDERS = {
    BASELINE: Order(BASELINE),
    "easy first": Order("clustered"),
    "easy first balanced": Order("balanced"),
    "easy first, no clusters": Order("easy_to_hard"),
    "easy first, random clusters": Order("random_clusters"),
    "easy first, dense state": Order("dense_state"),
    "easy first, true label": Order("true_difficulty"),
    "short first": Order("length_difficulty"),
    "easy first unmixed": Order("clustered", {"batches": {"mix_fraction": 0.0}}),
    "easy first fully mixed": Order("clustered", {"batches": {"mix_fraction": 1.0}}),
    "easy first in 4 clusters": Order("clustered", {"clusters": {"k": 4}}),
    "easy first in 64 clusters": Order("clustered", {"clusters": {"k": 64}}),
    "easy first filtered": Order("clustered", FILTERED),
    "easy first filtered, random drop": Order("random_drop", FILTERED),
    "no curriculum": Order("clustered", {"batches": {"curriculum": "none"}}),
    "in stages": Order("clustered", {"batches": {"curriculum": "staged"}}),
    "in quick stages": Order("clustered", {"batches": {"curriculum": "staged", "stage_fraction": 0.1}}),
    "hard first": Order("clustered", HARD_FIRST),
    "hard first, no clusters": Order("easy_to_hard", HARD_FIRST),
    "hard first, random clusters": Order("random_clusters", HARD_FIRST),
    "hard first, dense state": Order("dense_state", HARD_FIRST),
    "hard first, true label": Order("true_difficulty", HARD_FIRST),
    "contested first": Order("clustered", CONTESTED_FIRST),
    "contested first, no clusters": Order("easy_to_hard", CONTESTED_FIRST),
    "contested first, random clusters": Order("random_clusters", CONTESTED_FIRST),
    "contested first, dense state": Order("dense_state", CONTESTED_FIRST),
    "contested first, true label": Order("true_difficulty", CONTESTED_FIRST),
    "contested half": Order("clustered", CONTESTED_HALF),
    "contested half, shuffled": Order("shuffle", CONTESTED_HALF),
    "contested half, shuffled dense state": Order("shuffle", _contested_half(predictor="dense_mean")),
    "contested half, shuffled true label": Order("shuffle", _contested_half(score="label")),
    "contested half, random clusters": Order("random_clusters", CONTESTED_HALF),
    "contested half, random drop": Order("random_drop", CONTESTED_HALF),
    "contested half, true label": Order("true_difficulty", _contested_half(score="label")),
}
"""By name what is compared. Those of one name before the comma are confirmed together: what stands behind it is a
control of the order, a part of it, or its ceiling."""
CONTROLS = ("no clusters", "random clusters", "dense state", "random drop", "shuffled true label")
"""What is trained only to confirm: it tells where a difference comes from."""


def main() -> None:
    """Runs the command."""
    args = _arguments()
    home = HomeResource(root=str(Path(args.home).resolve()))
    home.open()
    names = list(dict.fromkeys([BASELINE, *_names(args)]))
    _plan(home, args, names)
    trials = {name: _trial(home, args, ORDERS[name]) for name in names}
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    started, n_trained = time.monotonic(), 0
    trainings = [(seed, name) for seed in seeds for name in names]  # seed by seed, so that what is done can be compared
    for at, (seed, name) in enumerate(trainings):
        done = _is_done(trials[name], seed)
        if not done:
            run_trial(_of_seeds(trials[name], [seed]), silent)
            n_trained += _is_done(trials[name], seed)
        left = (len(trainings) - at - 1) * (time.monotonic() - started) / max(n_trained, 1)
        rows = _evaluations(name, trials[name], [seed])
        last = f"{rows['accuracy'][-1]:.1%} at the end" if rows.height else "another process is at it"
        told = f"training {at + 1} of {len(trainings)}: {name}, seed {seed}: {last}"
        print(told + ("" if done else f"; about {clock(left)} to go"), flush=True)
    evaluations = pl.concat([_evaluations(name, trial, seeds) for name, trial in trials.items()])
    n_done = evaluations.select("arm", "seed").n_unique()
    print(f"{n_done} of {len(trainings)} trainings" + (": call it again" if n_done < len(trainings) else ""))
    summary = summarise_trial(evaluations, target=None, seed=args.version_seed)
    curves = _curves(evaluations)
    for name, height, *shares in curves:
        print(f"{name:34} mean {height:.1%}, by step", *(f"{share:.1%}" for share in shares))
    if args.figure is not None:
        highest_first = pl.concat([evaluations.filter(arm=name) for name, *_ in curves])
        Path(args.figure).write_bytes(figure_trial_evaluations(_shortened(highest_first, args.confirm)))
    print("\n".join(summary["verdict"]))
    if args.confirm is not None:
        print("\n".join(_beside(evaluations, args.confirm, args.version_seed)))
    print(json.dumps({"curves": curves, "summary": summary.drop("verdict").to_dicts()}, allow_nan=False))


def _names(args: argparse.Namespace) -> list[str]:
    """The orders to be trained."""
    if args.confirm is None:
        return list(args.orders or (name for name in ORDERS if not name.endswith(CONTROLS)))
    family = args.confirm.partition(",")[0]
    return [name for name in ORDERS if name.partition(",")[0] == family]


def _plan(home: HomeResource, args: argparse.Namespace, names: Sequence[str]) -> None:
    """The versions of the orders, planned; those that another process is at are waited for when the others are done."""
    for waits in (False, True):
        for name in names:
            spec = _spec(args, ORDERS[name].changes)
            lock = Path(home.root) / f"{spec.key}.lock"
            if not waits and is_locked(lock):
                continue
            with locked(lock, exclusive=True, purpose=f"planning {spec.key}", notify=print):
                home.catalog().register(spec, Path(args.spec).resolve().parent)
                with open_instance(home.open().dagster) as instance:
                    add_partition(instance, spec.key)
                if home.warehouse().rows("batch_manifest", dataset_version=spec.key).is_empty():
                    print(f"{spec.key}: {json.dumps(ORDERS[name].changes)}", flush=True)
                    done = run_version(home, spec.key, only=PLANNED)
                    if not done.success:
                        raise SystemExit(done.failure)


def _trial(home: HomeResource, args: argparse.Namespace, order: Order) -> Trial:
    """The trial of an order's arm alone."""
    return replace(open_trial(home, ComputeResource(), _spec(args, order.changes).key), arms=[order.arm])


PLANNED = [
    "versions",
    "prompts",
    "sae_weights",
    "sae_health",
    "prompt_features",
    "clusters",
    "rollouts",
    "labels",
    "difficulty_scores",
    "quality_probe",
    "quality_scores",
    "near_duplicates",
    "contamination",
    "control_signals",
    "batch_manifest",
]
"""The assets that an order comes from; evidence and report are left out."""


def _spec(args: argparse.Namespace, changes: Changes) -> VersionSpec:
    """The spec with the changes; its own key where there are none, else one that names them."""
    document = tomllib.loads(Path(args.spec).read_text(encoding="utf-8"))
    named = [_slug(f"{name}{value}") for settings in changes.values() for name, value in settings.items()]
    if args.version_seed != document.get("seed"):
        document["seed"] = args.version_seed
        named.append(f"seed{args.version_seed}")
    for section, settings in changes.items():
        document.setdefault(section, {}).update(settings)
    line, _, number = document["key"].rpartition("-v")
    document["key"] = "-".join([line, *named, f"v{number}"])
    return VersionSpec.model_validate(document)


def _slug(text: str) -> str:
    """What of it may stand in a version's key."""
    return "".join(character for character in text.lower() if character.isalnum())


def _of_seeds(trial: Trial, seeds: Sequence[int]) -> Trial:
    """The trial with trainings of some seeds alone."""
    return replace(trial, seeds=seeds)


def _is_done(trial: Trial, seed: int) -> bool:
    return trial.result_file(seed, trial.arms[0]).is_file()


def _evaluations(name: str, trial: Trial, seeds: Sequence[int]) -> pl.DataFrame:
    """What there is of a trial, under the name of its order."""
    found = read_evaluations(_of_seeds(trial, seeds))
    return found.with_columns(arm=pl.lit(name)).select(*EVALUATION_SCHEMA)


def _beside(evaluations: pl.DataFrame, confirmed: str, seed: int) -> list[str]:
    """Where the others ended beside the confirmed order, which takes the place of shuffle in the comparison."""
    swapped = pl.col("arm").replace({confirmed: BASELINE, BASELINE: confirmed})
    compared = summarise_trial(evaluations.with_columns(swapped), target=None, seed=seed)
    told = compared.filter(pl.col("arm") != BASELINE).with_columns(swapped).drop_nulls("final_difference_low")
    columns = "arm", "final_difference", "final_difference_low", "final_difference_high"
    return [
        f"beside {confirmed}: {name} ended {100 * points:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}"
        for name, points, low, high in told.select(columns).iter_rows()
    ]


def _shortened(evaluations: pl.DataFrame, confirmed: str | None) -> pl.DataFrame:
    """Without the name that all confirmed orders begin with, so that the figure's key has room."""
    family = f"{(confirmed or '').partition(',')[0]}, "
    return evaluations.with_columns(pl.col("arm").str.strip_prefix(family))


def _curves(evaluations: pl.DataFrame) -> Sequence[tuple[Any, ...]]:
    """Name, accuracy averaged over the evaluations and that of each, the highest first."""
    means = evaluations.group_by("arm", "step").agg(pl.col("accuracy").mean()).sort("step")
    rows: Mapping[str, list[float]] = dict(means.group_by("arm").agg("accuracy").iter_rows())
    return sorted(
        ((name, sum(shares) / len(shares), *shares) for name, shares in rows.items()), key=lambda row: -row[1]
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default=str(SPEC), metavar="FILE", help="default: the trial's in examples/trial")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--orders", nargs="+", choices=list(ORDERS), metavar="NAME", help="default: all but the controls"
    )
    which.add_argument("--confirm", choices=list(ORDERS), metavar="NAME", help="the winner of the search, by its name")
    parser.add_argument("--seeds", type=int, help="trainings of each (default: 2, to confirm 5)")
    parser.add_argument("--first-seed", type=int, help="of them (default: 0, to confirm 100)")
    parser.add_argument("--version-seed", type=int, help="of the versions (default: the spec's 7, to confirm 8)")
    parser.add_argument("--figure", metavar="FILE", help="draw shuffle's curve and the five highest others, as PNG")
    parser.add_argument("--home", default=".saerl-orders", help="where results are kept (default: .saerl-orders)")
    args = parser.parse_args()
    preset = (2, 0, 7) if args.confirm is None else (5, 100, 8)
    for name, value in zip(("seeds", "first_seed", "version_seed"), preset, strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


if __name__ == "__main__":
    main()
