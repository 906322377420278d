"""Rollouts of one version: which are known, sampling the others shard by shard, scoring them.

Belongs here: what is missing and where it is kept until it is stored. Does not belong here: generation (models),
choosing prompts and folding (domain.outcomes), verifiers (domain.verifiers).
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.outcomes import (
    ROLLOUT_SCHEMA,
    choose_prompts,
    fold_rollouts,
    observations_of,
    sampling_id,
    wanted_rollouts,
)
from saerl_assets.domain.progress import Progress
from saerl_assets.domain.spec import OutcomesSpec, digest
from saerl_assets.domain.verifiers import asked, load_verifier, needs_answer, verifier_fields
from saerl_assets.resources.compute import ComputeResource, outcomes_of
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Version
from saerl_assets.storage.shards import ShardStore

if TYPE_CHECKING:
    from saerl_assets.models.rollouts import Ask
    from saerl_assets.resources.worker_jobs import AnsweringJob, Answers

MADE_COLUMNS = ("rollout_id", "completion", "n_tokens", "is_truncated", "engine", "made_at")
"""What a shard holds of each rollout; the rest follows from the spec, the prompts and the verifier."""


@dataclass(frozen=True)
class RolledOut:
    """What the policy's answers come to."""

    rollouts: pl.DataFrame
    outcomes: pl.DataFrame
    observations: pl.DataFrame
    """Of both labels, for `label_observations`."""
    figures: Mapping[str, int | float | str]
    forget: Callable[[], None]
    """Removes the shards, once their rows are stored."""


def roll_out(
    home: HomeResource,
    compute: ComputeResource,
    version: Version,
    prompts: pl.DataFrame,
    assignments: pl.DataFrame,
    progress: Progress,
) -> RolledOut:
    """Lets the policy answer a sample of the prompts, as far as it has not yet, and scores the answers.

    Killed anywhere and run again, it samples only what is missing. Rollouts of other versions with the same policy,
    sampling and seed are taken over.

    Args:
        home: The home.
        compute: The device.
        version: One with `[outcomes]`.
        prompts: Table `prompts`.
        assignments: Table `cluster_assignments`.
        progress: Told after every shard.

    Raises:
        SaerlError: `policy_changed`, `no_prompt_to_answer`; what is wrong with the policy or the verifier.
    """
    spec = outcomes_of(version)
    load_verifier(spec.verifier)  # what is wrong with it is told before anything is sampled
    policy = compute.policy_files(version, progress)
    _check_policy(home, version, policy.digest)
    identity = sampling_id(policy.digest, spec, version.spec.seed)
    chosen = _answerable(compute, version, _chosen(version, prompts, assignments))
    wanted = wanted_rollouts(chosen, spec.n_rollouts, identity)
    known = home.warehouse().rows("rollouts", sampling_id=identity).drop("dataset_version")
    known = known.filter(pl.col("rollout_id").is_in(wanted["rollout_id"].implode())).unique("rollout_id", keep="first")
    store = ShardStore.of(home.open(), home.open().work(version.key) / "rollouts" / identity)
    missing = wanted.join(known, on="rollout_id", how="anti")
    made, figures = _sampled(compute, version, chosen, missing, store, progress)
    new = missing.join(made, on="rollout_id", how="inner").with_columns(
        sampling_id=pl.lit(identity), policy_digest=pl.lit(policy.digest)
    )
    rollouts = _scored(spec, prompts, known, new).sort("prompt_id", "sample")
    figures |= {
        "prompts_answered": chosen.height,
        "prompts_too_long": int(chosen["n_too_long"][0]) if chosen.height else 0,
        "rollouts_reused": known.height,
        "policy": spec.policy.partition("#")[0],
        **compute.as_metadata(),
    }
    outcomes = fold_rollouts(rollouts, chosen)
    return RolledOut(rollouts, outcomes, observations_of(rollouts, spec), figures, store.remove)


def _chosen(version: Version, prompts: pl.DataFrame, assignments: pl.DataFrame) -> pl.DataFrame:
    """The sample, with each prompt's messages."""
    spec = outcomes_of(version)
    chosen = choose_prompts(
        prompts,
        assignments,
        n_prompts=spec.n_prompts,
        seed=version.spec.seed,
        needs_answer=needs_answer(spec.verifier),
    )
    if chosen.is_empty():
        raise SaerlError(
            "no_prompt_to_answer",
            f"None of the {prompts.height:,} prompts can be answered and scored by {spec.verifier!r}.",
            where="outcomes",
            remedy="Let data.answer name the reference answer, or use another verifier.",
        )
    return chosen.join(prompts.select("prompt_id", "messages", "is_chat"), on="prompt_id", how="inner").sort(
        "prompt_id"
    )


def _answerable(compute: ComputeResource, version: Version, chosen: pl.DataFrame) -> pl.DataFrame:
    """The prompts whose answer fits the policy's context, with their tokens and how many did not fit."""
    from saerl_assets.models.rollouts import context_length

    tokeniser = compute.policy_tokeniser(version)
    texts = [
        messages if is_chat else messages[0]["content"]
        for messages, is_chat in zip(map(json.loads, chosen["messages"]), chosen["is_chat"], strict=True)
    ]
    read = tokeniser(texts, [None] * len(texts))
    with_tokens = chosen.with_columns(
        token_ids=pl.Series([list(text.token_ids) for text in read], dtype=pl.List(pl.UInt32))
    )
    limit = context_length(compute.policy_files(version))
    room = None if limit is None else limit - outcomes_of(version).max_new_tokens
    fits = with_tokens if room is None else with_tokens.filter(pl.col("token_ids").list.len() <= max(room, 0))
    if fits.is_empty():
        problem = f"No prompt and {outcomes_of(version).max_new_tokens} more tokens fit the policy's {limit}."
        remedy = "Lower outcomes.max_new_tokens, or use a policy with a longer context."
        raise SaerlError("no_prompt_to_answer", problem, where="outcomes.max_new_tokens", remedy=remedy)
    return fits.with_columns(n_too_long=pl.lit(chosen.height - fits.height))


def _sampled(
    compute: ComputeResource,
    version: Version,
    chosen: pl.DataFrame,
    missing: pl.DataFrame,
    store: ShardStore,
    progress: Progress,
) -> tuple[pl.DataFrame, dict[str, int | float | str]]:
    """The missing rollouts: those that an interrupted run has left, and the others, which are made now."""
    left = pl.concat([_empty(), *(pl.read_parquet(file) for file in _files(store))])
    done = missing.join(left, on="rollout_id", how="semi").height
    to_make = missing.join(left, on="rollout_id", how="anti")
    started, n_tokens, made = time.monotonic(), 0, [left]
    for rows in _shards(compute, version, chosen, to_make, store, progress):
        done += rows.height
        n_tokens += int(rows["n_tokens"].sum())
        made.append(rows)
        progress(done, missing.height, unit="rollouts", note=f"{n_tokens / (time.monotonic() - started):,.0f} tokens/s")
    seconds = time.monotonic() - started
    figures: dict[str, int | float | str] = {
        "rollouts_made": to_make.height,
        "rollouts_resumed": missing.height - to_make.height,
        "tokens_written": n_tokens,
        "tokens_per_second": round(n_tokens / seconds, 1) if to_make.height else 0.0,
    }
    return pl.concat(made).unique("rollout_id", keep="first"), figures


def _shards(
    compute: ComputeResource,
    version: Version,
    chosen: pl.DataFrame,
    to_make: pl.DataFrame,
    store: ShardStore,
    progress: Progress,
) -> Iterator[pl.DataFrame]:
    """Samples shard by shard, longest prompts first, so that a lack of memory shows at once; keeps each."""
    if to_make.is_empty():
        return
    from saerl_assets.models.rollouts import Ask, Sampling
    from saerl_assets.resources.worker_jobs import AnsweringJob

    spec = outcomes_of(version)
    sampling = Sampling(spec.temperature, spec.top_p, spec.max_new_tokens)
    progress(0, to_make.height, unit="rollouts", note=f"loading {spec.policy.partition('#')[0]}")
    ordered = to_make.join(chosen.select("prompt_id", "token_ids"), on="prompt_id", how="inner").sort(
        pl.col("token_ids").list.len(), "rollout_id", descending=[True, False]
    )
    longest = len(ordered["token_ids"][0]) + spec.max_new_tokens
    parts = {
        digest(part["rollout_id"].to_list())[:32]: [
            Ask(rollout, tokens) for rollout, tokens in part.select("rollout_id", "token_ids").iter_rows()
        ]
        for part in ordered.iter_slices(compute.rollouts_per_shard())
    }
    job = AnsweringJob(compute.settings(), version, compute.policy_files(version).digest, longest, sampling)
    crew = compute.crew(job, lambda words: progress(0, to_make.height, unit="rollouts", note=words))
    for name, answers in _alone(job, compute, parts) if crew is None else crew.results(parts):
        now = datetime.now(UTC).replace(tzinfo=None)
        rows = pl.DataFrame(
            [
                (ask.rollout_id, each.text, each.n_tokens, each.is_truncated, answers.generator, now)
                for ask, each in zip(parts[name], answers.completions, strict=True)
            ],
            schema={name: ROLLOUT_SCHEMA[name] for name in MADE_COLUMNS},
            orient="row",
        )
        store.write(name, {"rollouts": rows.to_arrow()})
        yield rows


def _alone(
    job: "AnsweringJob", compute: ComputeResource, parts: "Mapping[str, Sequence[Ask]]"
) -> "Iterator[tuple[str, Answers]]":
    """In this process, one part after the other."""
    answer = job.open(compute.device)
    for name, asks in parts.items():
        yield name, answer(asks)


def _scored(spec: OutcomesSpec, prompts: pl.DataFrame, known: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """All rollouts with their scores; those that another verifier scored are scored again."""
    as_scored = known.filter(pl.col("verifier") == spec.verifier)
    unscored = pl.concat(
        [known.filter(pl.col("verifier") != spec.verifier).drop("score", "verifier").select(new.columns), new]
    )
    rows = unscored.join(
        prompts.select("prompt_id", "messages", "answer", "topic", "extra"), on="prompt_id", how="left"
    )
    verify = load_verifier(spec.verifier)
    scores = [
        verify(completion, answer, verifier_fields(extra, prompt=asked(messages), topic=topic))
        for completion, answer, extra, messages, topic in rows.select(
            "completion", "answer", "extra", "messages", "topic"
        ).iter_rows()
    ]
    scored = rows.with_columns(score=pl.Series(scores, dtype=pl.Float64), verifier=pl.lit(spec.verifier))
    columns = [pl.col(name).cast(dtype) for name, dtype in ROLLOUT_SCHEMA.items()]
    return pl.concat([as_scored.select(columns), scored.select(columns)])


def _check_policy(home: HomeResource, version: Version, policy_digest: str) -> None:
    before = home.warehouse().rows("rollouts", ["policy_digest"], dataset_version=version.key)["policy_digest"]
    if set(before) - {policy_digest}:
        raise SaerlError(
            "policy_changed",
            "The policy's files are no longer those whose answers this version has.",
            where=outcomes_of(version).policy.partition("#")[0],
            remedy="Put them back, or register a new version with this one as its parent.",
        )


def _files(store: ShardStore) -> list[str]:
    return [str(file) for file in store.files("rollouts", store.finished(["rollouts"]))]


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema={name: ROLLOUT_SCHEMA[name] for name in MADE_COLUMNS})
