"""What a run would read and compute, with time, memory and disk, before it does.

Belongs here: counting and multiplying. Does not belong here: running anything; the source is read and tokenised, no
more.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import dagster as dg
import polars as pl

from saerl_assets.automation.jobs import load_project
from saerl_assets.automation.runs import open_instance
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.outcomes import sampling_id
from saerl_assets.domain.prompts import take_prompts
from saerl_assets.domain.spec import VersionSpec
from saerl_assets.domain.trial import arms_asked_for
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.progress import clock, progress_lines
from saerl_assets.storage.sources import estimate_rows, read_source

FORWARD_EFFICIENCY = 0.35
"""Share of a matrix product's speed that a forward pass reaches; used until a speed was measured."""
SAE_TRAINING_MULTIPLE = 6
"""Floating-point operations of one training step for each multiplication of the encoder: forward, backward, decoder."""
BYTES_PER_FEATURE = 6
FEATURES_PER_TOKEN = 0.35
EVIDENCE_OPERATIONS = 500
"""Of weighing one label on n prompts, in units of n^3: two kernels of ten predictors, factorised in five folds, on one
thread at a fifth of a matrix product's speed."""
GENERATION_EFFICIENCY = 0.1
"""The same of writing answers, token after token, some tens at a time."""
OVERHEAD_SECONDS = 30
OVERHEAD_BYTES = 900_000_000


@dataclass(frozen=True)
class Estimate:
    """A run beforehand. Seconds, bytes and counts; `basis` says where the speed comes from."""

    n_rows: int
    n_prompts: int
    n_rejected: int
    n_tokens: int
    n_texts_read_before: int
    n_tokens_to_read: int
    n_training_tokens: int
    seconds_reading: float
    seconds_training: float
    seconds_health: float
    seconds_evidence: float
    memory_bytes: float
    disk_bytes: float
    basis: str
    n_rollouts: int = 0
    """Answers that the policy has yet to write."""
    seconds_rollouts: float = 0.0
    n_batches: int = 0
    """Whole batches of an arm in all epochs, if no prompt is left out for quality or hygiene."""
    n_trainings: int = 0
    """What `saerl trial` trains after the run; not in the time."""
    n_trial_steps: int = 0
    """Optimizer steps of each, at most."""

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """For a table."""
        yield (
            "read",
            "source",
            f"{self.n_rows:,} rows: {self.n_prompts:,} prompts, {self.n_rejected:,} rows rejected",
        )
        yield "", "tokens", f"{self.n_tokens:,}, {self.n_tokens / max(self.n_prompts, 1):.0f} a prompt"
        yield "", "read before", f"{self.n_texts_read_before:,} texts, which are not read again"
        yield "compute", "reader", f"{self.n_tokens_to_read:,} tokens, about {clock(self.seconds_reading)}"
        yield (
            "",
            "SAE",
            (
                f"{self.n_training_tokens:,} training tokens, about {clock(self.seconds_training)}"
                if self.n_training_tokens
                else "no training"
            ),
        )
        yield "", "SAE's health", f"about {clock(self.seconds_health)}"
        yield "", "evidence", f"at most {clock(self.seconds_evidence)}" if self.seconds_evidence else "no label"
        if self.n_rollouts:
            yield "", "policy", f"{self.n_rollouts:,} answers, at most {clock(self.seconds_rollouts)}"
        yield "order", "batches", f"at most {self.n_batches:,} in each arm"
        if self.n_trainings:
            trial = (
                f"{self.n_trainings:,} trainings of {self.n_trial_steps:,} steps at most, by saerl trial after the run"
            )
            yield "", "trial", trial
        parts = (self.seconds_reading, self.seconds_training, self.seconds_health, self.seconds_evidence)
        total = sum(parts) + self.seconds_rollouts + OVERHEAD_SECONDS
        yield "in all", "time", f"about {clock(total)} ({self.basis})"
        yield "", "memory", f"about {self.memory_bytes / 1e9:.1f} GB"
        yield "", "disk", f"about {self.disk_bytes / 1e9:.2f} GB"

    def as_dict(self) -> dict[str, float | str]:
        """For scripts."""
        return dict(vars(self))


def estimate(home: HomeResource, compute: ComputeResource, key: str) -> Estimate:
    """Counts what a version has to read and multiplies it by the speed of this machine.

    Raises:
        SaerlError: `too_few_steps` if the trial asks for more steps than the order can have; what is wrong with the
            version, its source or its models.
    """
    version = home.version(key)
    prompts, n_rejected = _prompts(home, compute, key)
    order = _order(version.spec, int((prompts["split"] == "train").sum()))
    trained_here = version.spec.sae.source == ("train",) or (
        version.spec.sae.source == ("auto",) and version.spec.parent is None
    )
    weights = home.warehouse().rows("sae_weights", dataset_version=version.spec.parent or key)
    texts = prompts.unique("text_id")
    read_before = _read_before(home, texts, weights)
    n_to_read = int(texts.filter(~pl.col("text_id").is_in(read_before.implode()))["n_tokens"].sum())
    size = compute.reader_size(version)
    flops = _flops_per_token(size, max(version.spec.reader.layers) + 1)
    measured = _measured_speed(home, weights)
    machine = compute.matmul_flops()
    speed = measured or machine * FORWARD_EFFICIENCY / flops
    n_training = version.spec.sae.training_tokens if trained_here and weights.is_empty() else 0
    training_flops = 2.0 * SAE_TRAINING_MULTIPLE * size["d_model"] * version.spec.sae.n_latents
    n_layers = len(version.spec.reader.layers)
    n_tokens = int(prompts["n_tokens"].sum())
    whole = _flops_per_token(size, size["n_blocks"]) + 2.0 * size["n_vocabulary"] * size["d_model"]
    n_weighed = min(version.spec.evidence.max_labels, prompts.height)
    n_labels = len(version.spec.labels) + (version.spec.data.topic is not None)
    n_labels += len(version.spec.outcomes.labels()) if version.spec.outcomes else 0
    cached = min(n_tokens, version.spec.sae.max_activation_tokens) if n_training else 0
    return Estimate(
        n_rows=int(prompts["n_rows"].sum()) + n_rejected,
        n_prompts=prompts.height,
        n_rejected=n_rejected,
        n_tokens=n_tokens,
        n_texts_read_before=read_before.len(),
        n_tokens_to_read=n_to_read,
        n_training_tokens=n_training * n_layers,
        seconds_reading=n_to_read / speed,
        seconds_training=n_layers * n_training * training_flops / (machine * FORWARD_EFFICIENCY),
        # the model as it is, with the reconstruction, with zeros
        seconds_health=3.0 * version.spec.sae.health_tokens * whole / (machine * FORWARD_EFFICIENCY),
        seconds_evidence=n_labels * EVIDENCE_OPERATIONS * 5.0 * float(n_weighed) ** 3 / machine,
        memory_bytes=OVERHEAD_BYTES + 4.0 * _parameters(size, version.spec) + 8.0 * cached * size["d_model"],
        disk_bytes=n_layers
        * (texts.height * size["d_model"] * 8 + n_tokens * FEATURES_PER_TOKEN * version.spec.sae.k * BYTES_PER_FEATURE)
        + 4.0 * cached * size["d_model"] * n_layers,
        basis="measured on this machine before" if measured else "from this machine's matrix product",
        **_rollouts(home, compute, key, prompts.height, machine),
        **order,
    )


def _order(spec: VersionSpec, n_train: int) -> dict[str, int]:
    """Batches of an arm, and what a trial trains on them.

    Raises:
        SaerlError: `too_few_steps`.
    """
    batches, trial = spec.batches, spec.trial
    round_off = math.ceil if batches.tail == "pad" else math.floor
    n_batches = batches.epochs * round_off(len(spec.difficulty.places_kept(n_train)) / batches.batch_size)
    if trial is None:
        return {"n_batches": n_batches}
    if trial.n_steps is not None and trial.n_steps > n_batches:
        problem = f"The order has {n_batches:,} batches at most, fewer than {trial.n_steps:,} steps."
        remedy = f"Register a version that asks for {n_batches:,} at most, or plans more with batches.epochs."
        raise SaerlError("too_few_steps", problem, where="trial.n_steps", remedy=remedy)
    return {
        "n_batches": n_batches,
        "n_trainings": len(arms_asked_for(spec)) * trial.n_seeds,
        "n_trial_steps": trial.n_steps or n_batches,
    }


def _rollouts(home: HomeResource, compute: ComputeResource, key: str, n_prompts: int, machine: float) -> dict[str, Any]:
    """Answers that the policy has yet to write, and how long that takes if all are as long as they may be."""
    version = home.version(key)
    outcomes = version.spec.outcomes
    if outcomes is None:
        return {}
    identity = sampling_id(compute.policy_files(version).digest, outcomes, version.spec.seed)
    wanted = min(outcomes.n_prompts, n_prompts) * outcomes.n_rollouts
    known = home.warehouse().rows("rollouts", ["rollout_id"], sampling_id=identity)["rollout_id"].n_unique()
    size = compute.policy_size(version)
    flops = _flops_per_token(size, size["n_blocks"]) + 2.0 * size["n_vocabulary"] * size["d_model"]
    missing = max(wanted - known, 0)
    seconds = missing * outcomes.max_new_tokens * flops / (machine * GENERATION_EFFICIENCY)
    return {"n_rollouts": missing, "seconds_rollouts": seconds}


def _prompts(home: HomeResource, compute: ComputeResource, key: str) -> tuple[pl.DataFrame, int]:
    """The version's prompts: those of the warehouse, or the source read and tokenised now."""
    warehouse = home.warehouse()
    columns = ["text_id", "n_tokens", "n_rows", "split"]
    found = warehouse.rows("prompts", columns, dataset_version=key)
    if found.height:
        return found, warehouse.rows("rejected_rows", ["position"], dataset_version=key).height
    version = home.version(key)
    source = version.sources["data"]
    say = progress_lines(_print, "reading the source")
    taken = take_prompts(
        read_source(source),
        version.spec,
        compute.tokeniser(version, progress_lines(_print, "reader")),
        file=source.location,
        n_rows=version.spec.data.limit or estimate_rows(source),
        progress=say,
    )
    return taken.prompts.select(columns), taken.rejected.height


def _read_before(home: HomeResource, texts: pl.DataFrame, weights: pl.DataFrame) -> pl.Series:
    """Texts that every encoder of the version has read."""
    read = texts["text_id"]
    for encoder_id in weights["encoder_id"]:
        known = home.warehouse().rows("prompt_features", ["text_id"], encoder_id=encoder_id)["text_id"]
        read = read.filter(read.is_in(known.implode()))
    return read if weights.height else read.clear()


def _measured_speed(home: HomeResource, weights: pl.DataFrame) -> float | None:
    """Tokens a second of the newest extraction of a version with the same encoders."""
    if weights.is_empty():
        return None
    wanted = dg.AssetRecordsFilter(asset_key=load_project().placement.key("prompt_features"))
    with open_instance(home.open().dagster) as instance:
        for record in instance.fetch_materializations(wanted, limit=20).records:
            found = record.asset_materialization
            speed = found and found.metadata.get("tokens_per_second")
            if speed and float(str(speed.value)) > 0:
                return float(str(speed.value))
    return None


def _flops_per_token(size: dict[str, int], n_blocks: int) -> float:
    """Two operations for each weight of the blocks that are run."""
    return 2.0 * n_blocks * (4 * size["d_model"] ** 2 + 3 * size["d_model"] * size["d_ff"])


def _parameters(size: dict[str, int], spec: VersionSpec) -> float:
    """Weights in memory: blocks, embedding and the SAEs with Adam's two moments and gradients."""
    blocks = _flops_per_token(size, max(spec.reader.layers) + 1) / 2
    sae = 2 * size["d_model"] * spec.sae.n_latents * 4 * len(spec.reader.layers)
    return blocks + size["n_vocabulary"] * size["d_model"] + sae


def _print(line: str) -> None:
    click.echo(line, err=True)
