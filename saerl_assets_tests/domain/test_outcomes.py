from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.labels import fold_labels
from saerl_assets.domain.outcomes import (
    agreement,
    choose_prompts,
    fold_rollouts,
    observations_of,
    quotas,
    rollout_id,
    sampling_id,
    wanted_rollouts,
)
from saerl_assets.domain.spec import OutcomesSpec

SPEC = OutcomesSpec(policy="path:policy", verifier="exact")


def some_prompts(n: int, *, n_clusters: int = 5, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Prompts of uneven clusters, every tenth for evaluation, every seventh without an answer."""
    rng = np.random.default_rng(seed)
    ids = [f"{place:032x}" for place in rng.permutation(n)]
    prompts = pl.DataFrame(
        {
            "prompt_id": ids,
            "messages": [f"question {place}" for place in range(n)],
            "split": ["evaluation" if place % 10 == 0 else "train" for place in range(n)],
            "answer": [None if place % 7 == 0 else "4" for place in range(n)],
        },
        schema_overrides={"answer": pl.String, "split": pl.String},
    )
    clusters = np.minimum(rng.geometric(0.5, n) - 1, n_clusters - 1)
    return prompts, pl.DataFrame({"prompt_id": ids, "cluster_id": clusters.astype(np.uint32)})


def choose(prompts: pl.DataFrame, clusters: pl.DataFrame, n: int, *, needs_answer: bool = False) -> pl.DataFrame:
    return choose_prompts(prompts, clusters, n_prompts=n, seed=3, needs_answer=needs_answer)


@settings(max_examples=300)
@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 400))
def test_quotas_add_up_stay_within_and_give_each_its_share(sizes: list[int], n: int) -> None:
    given_out = quotas(np.array(sizes, dtype=np.int64), n)
    assert given_out.sum() == min(n, sum(sizes))
    assert (given_out <= np.array(sizes, dtype=np.int64)).all()
    filled = [place for place, size in enumerate(sizes) if size]
    if n >= len(filled):
        assert all(given_out[place] >= 1 for place in filled)
    for place in filled:  # the ones that small groups are given come from the others, one each at most
        share = min(n, sum(sizes)) * sizes[place] / sum(sizes)
        assert given_out[place] <= share + 1
        assert given_out[place] >= np.floor(share) - len(filled)


def test_quotas_are_proportional_where_they_can_be() -> None:
    assert quotas(np.array([50, 30, 20]), 10).tolist() == [5, 3, 2]
    assert quotas(np.array([97, 1, 1, 1]), 10).tolist() == [7, 1, 1, 1]
    assert quotas(np.array([5, 5, 5]), 2).tolist() == [1, 1, 0]
    assert quotas(np.array([3, 0, 2]), 100).tolist() == [3, 0, 2]
    assert quotas(np.array([], dtype=np.int64), 3).tolist() == []


@settings(max_examples=50)
@given(st.integers(1, 120), st.integers(1, 150), st.integers(0, 5))
def test_the_sample_is_stratified_and_does_not_depend_on_the_order(n: int, wanted: int, seed: int) -> None:
    prompts, clusters = some_prompts(n, seed=seed)
    chosen = choose(prompts, clusters, wanted)
    assert chosen.height == min(n, wanted)
    assert chosen["prompt_id"].n_unique() == chosen.height
    shuffled = choose(prompts.sample(fraction=1.0, shuffle=True, seed=1), clusters.reverse(), wanted)
    assert shuffled.equals(chosen)
    train = prompts.filter(split="train").join(clusters, on="prompt_id")
    if chosen.filter(split="train").height >= train["cluster_id"].n_unique():
        assert set(chosen.filter(split="train")["cluster_id"]) == set(train["cluster_id"])


def test_both_splits_are_answered_in_their_share() -> None:
    prompts, clusters = some_prompts(1000)
    chosen = choose(prompts, clusters, 200)
    assert chosen.filter(split="evaluation").height == 20
    sizes = clusters["cluster_id"].value_counts().sort("cluster_id")["count"]
    taken = chosen["cluster_id"].value_counts().sort("cluster_id")["count"]
    assert np.abs(taken.to_numpy() - 0.2 * sizes.to_numpy()).max() < 2.5


def test_a_larger_sample_holds_the_smaller_and_new_prompts_leave_most_in_it() -> None:
    prompts, clusters = some_prompts(1000)
    small, large = (set(choose(prompts, clusters, n)["prompt_id"]) for n in (100, 300))
    assert small <= large
    more = choose(prompts.head(900), clusters.head(900), 100)
    assert len(small & set(more["prompt_id"])) > 80


def test_prompts_without_an_answer_are_left_out_where_one_is_needed() -> None:
    prompts, clusters = some_prompts(140)
    assert choose(prompts, clusters, 140).height == 140
    with_answer = choose(prompts, clusters, 140, needs_answer=True)
    assert with_answer.height == 120
    assert with_answer.join(prompts.filter(pl.col("answer").is_null()), on="prompt_id", how="semi").is_empty()
    assert choose(prompts.with_columns(answer=pl.lit(None, pl.String)), clusters, 9, needs_answer=True).is_empty()


def test_one_question_with_several_responses_is_asked_once() -> None:
    prompts, clusters = some_prompts(60)
    asked_twice = prompts.with_columns(messages=pl.lit("the same"), split=pl.lit("train"))
    assert choose(asked_twice, clusters, 60).height == 1


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.7}, {"top_p": 0.9}, {"max_new_tokens": 8}, {"template": "plain"}, {"dtype": "bfloat16"}],
)
def test_what_decides_a_completion_is_in_its_identity(change: dict[str, object]) -> None:
    before = sampling_id("policy", SPEC, 3)
    assert sampling_id("policy", SPEC.model_copy(update=change), 3) != before
    assert sampling_id("other", SPEC, 3) != before
    assert sampling_id("policy", SPEC, 4) != before


def test_what_does_not_decide_it_is_not() -> None:
    other = SPEC.model_copy(
        update={"n_prompts": 9, "n_rollouts": 2, "verifier": "math", "correct_label": "c", "policy": "path:elsewhere"}
    )
    assert sampling_id("policy", other, 3) == sampling_id("policy", SPEC, 3)
    ids = {rollout_id(sampling, prompt, sample) for sampling in "ab" for prompt in "xy" for sample in range(3)}
    assert len(ids) == 12
    assert all(len(identity) == 32 and int(identity, 16) >= 0 for identity in ids)


def rolled(scores: list[float], chosen: pl.DataFrame) -> pl.DataFrame:
    return wanted_rollouts(chosen, len(scores), "s").with_columns(
        score=pl.Series(scores * chosen.height),
        n_tokens=pl.lit(10, pl.UInt32),
        is_truncated=pl.col("sample") == 0,
        policy_digest=pl.lit("p"),
        verifier=pl.lit("exact"),
    )


def test_rollouts_fold_into_pass_rates_and_labels_with_their_count() -> None:
    chosen = choose(*some_prompts(20), 6)
    rollouts = rolled([0.0, 1.0, 1.0, 0.5], chosen)
    outcomes = fold_rollouts(rollouts.reverse(), chosen)
    assert outcomes["prompt_id"].to_list() == chosen["prompt_id"].to_list()
    assert set(outcomes["pass_rate"]) == {0.625}
    assert set(outcomes["n_rollouts"]) == {4}
    assert set(outcomes["n_truncated"]) == {1}
    assert outcomes["cluster_id"].to_list() == chosen["cluster_id"].to_list()
    observations = observations_of(rollouts, SPEC)
    assert observations["observation_id"].n_unique() == observations.height == 2 * rollouts.height
    assert observations_of(rollouts.reverse(), SPEC).sort("observation_id").equals(observations.sort("observation_id"))
    labels = fold_labels(observations)
    assert set(labels.filter(label="correct")["value"]) == {0.625}
    assert set(labels.filter(label="difficulty")["value"]) == {0.375}
    assert set(labels["n_observations"]) == {4}
    assert set(observations["source"]) == {"rollouts"}


def test_a_third_label_says_how_alike_the_answers_are_scored() -> None:
    chosen = choose(*some_prompts(20), 6)
    named = SPEC.model_copy(update={"agreement_label": "agreement"})
    rollouts = rolled([0.0, 1.0, 1.0, 0.5], chosen)
    observations = observations_of(rollouts, named).filter(label="agreement")
    assert observations.height == chosen.height
    assert observations.sort("observation_id").equals(
        observations_of(rollouts.reverse(), named).filter(label="agreement").sort("observation_id")
    )
    assert set(observations["value"]) == {1 - (1 + 1 + 0.5 + 0 + 0.5 + 0.5) / 6}
    assert observations_of(rolled([1.0], chosen), named).filter(label="agreement").is_empty()


def test_agreement_is_one_of_equal_scores_and_has_no_bias() -> None:
    assert agreement(np.ones(5)) == 1.0
    assert agreement(np.array([0.0, 1.0])) == 0.0
    drawn = np.random.default_rng(0).random((20_000, 4)) < 0.3
    found = np.mean([agreement(scores) for scores in drawn.astype(float)])
    assert found == pytest.approx(1 - 2 * 0.3 * 0.7, abs=0.01)


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_agreement_is_one_minus_the_mean_difference_of_pairs(scores: list[float]) -> None:
    pairs = [abs(a - b) for a, b in itertools.combinations(scores, 2)]
    assert agreement(np.array(scores)) == pytest.approx(1 - sum(pairs) / len(pairs))


def test_nothing_rolled_out_is_nothing_observed() -> None:
    chosen = choose(*some_prompts(20), 6)
    nothing = rolled([1.0], chosen).clear()
    assert observations_of(nothing, SPEC).is_empty()
    assert fold_rollouts(nothing, chosen).is_empty()
    assert wanted_rollouts(chosen.clear(), 3, "s").is_empty()
