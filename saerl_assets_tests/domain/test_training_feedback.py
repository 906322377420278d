"""Labels and training logs that arrive later: whose they are, what they say, and what is left out with its reason."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.domain.messages import canonical_messages, prompt_id
from saerl_assets.domain.spec import VersionSpec
from saerl_assets.domain.training_feedback import Feedback, difficulty_correlation, fullest, read_feedback

QUESTIONS = ["What is 1 + 1?", "Name a prime\nabove 10.", "Spell: word", "user\nis a word here"]


def spec(**data: object) -> VersionSpec:
    labels = {"difficulty": {"column": "level"}}
    return VersionSpec.model_validate(
        {"key": "a-v1", "data": {"source": "path:x", "prompt": "question", **data}, "labels": labels}
    )


def identity(question: object, response: str | None = None) -> str:
    return prompt_id(canonical_messages(question, "prompt")[0], response)


def prompts(*questions: object, responses: tuple[str | None, ...] = (None,)) -> pl.DataFrame:
    rows = [
        {"prompt_id": identity(question, response), "messages": json.dumps(canonical_messages(question, "p")[0])}
        for question in questions or QUESTIONS
        for response in responses
    ]
    return pl.DataFrame(rows)


def read(*rows: dict[str, object], known: pl.DataFrame | None = None, **named: str) -> Feedback:
    lines = [SourceRow(place, place + 1, row) for place, row in enumerate(rows)]
    given_ = {"file": "log_0003.jsonl", "digest": "d", "manifest_id": "current"} | named
    return read_feedback(lines, prompts() if known is None else known, spec(), **given_)


def test_this_packages_own_log_becomes_a_row_per_step_and_prompt() -> None:
    one = identity(QUESTIONS[0])
    line = {"manifest_id": "m", "step": 4, "prompt_id": one, "epoch": 1}
    found = read({**line, "reward": 0.0}, {**line, "reward": 1.0}, {**line, "reward": None, "loss": 2.0})
    assert found.format == "saerl_log"
    assert found.feedback.drop("line").to_dicts() == [
        {
            "run_name": "log",
            "step": 4,
            "prompt_id": one,
            "manifest_id": "m",
            "epoch": 1,
            "n_completions": 3,
            "reward": 0.5,
            "loss": 2.0,
            "pass_rate": None,
        }
    ]
    assert found.observations.is_empty()


def test_trls_completions_are_known_by_their_columns_and_rewards_are_summed() -> None:
    row = {
        "step": 1,
        "prompt": [{"role": "user", "content": QUESTIONS[0]}],
        "completion": [{"role": "assistant", "content": "2"}],
        "correct_reward": 1.0,
        "length_reward": -0.25,
        "advantage": 3.0,
    }
    found = read(row, {**row, "correct_reward": None})
    assert (found.format, found.feedback["step"].to_list()) == ("trl", [0])
    assert found.feedback["reward"][0] == pytest.approx((0.75 - 0.25) / 2)
    assert found.feedback["manifest_id"][0] == "current"
    assert found.feedback["run_name"][0] == "trl"


@pytest.mark.parametrize(
    "rendered",
    [
        "user\n{}\nassistant\n",
        "system\nYou are a helpful assistant.\nuser\n{}\nassistant\n",
        "system\n\nToday is Monday.user\n\n{}assistant\n\n",
        "<|user|>\n{}\n<|assistant|>\n<think>\n",
        "user\n{}\nmodel",
        "[INST] {} [/INST]",
        "{}",
    ],
)
@pytest.mark.parametrize("question", QUESTIONS)
def test_verls_rollouts_are_matched_through_the_chat_template(rendered: str, question: str) -> None:
    if "Monday.user" in rendered:
        rendered = rendered.replace(".user", ".\nuser").replace("{}assistant", "{}\nassistant")
    row = {"input": rendered.format(question), "output": "x", "gts": "2", "score": 1.0, "step": 3, "acc": True}
    found = read(row)
    assert found.rejected.is_empty()
    assert found.format == "verl"
    assert found.feedback.select("prompt_id", "step", "reward", "pass_rate").row(0) == (identity(question), 2, 1.0, 1.0)


def test_plain_rows_without_steps_are_labels() -> None:
    found = read(
        {"question": QUESTIONS[0], "correct": True},
        {"prompt": QUESTIONS[1], "pass_rate": 0.25},
        {"prompt_id": identity(QUESTIONS[2]), "level": 3, "correctness": "0.5"},
    )
    assert found.feedback.is_empty()
    assert sorted(found.observations.select("label", "value").rows()) == [
        ("correct", 0.25),
        ("correct", 0.5),
        ("correct", 1.0),
        ("difficulty", 3.0),
    ]
    assert found.observations["observation_id"].n_unique() == 4
    assert found.explanation == "4 observations of correct, difficulty."


def test_with_a_step_the_same_fields_are_feedback() -> None:
    found = read({"question": QUESTIONS[0], "correct": True, "step": 7, "run_name": "warm"})
    assert found.observations.is_empty()
    assert found.feedback.select("run_name", "step", "pass_rate").row(0) == ("warm", 7, 1.0)


def test_what_matches_no_prompt_is_counted_and_kept_with_its_reason() -> None:
    found = read(
        {"prompt": "Nobody asked this", "reward": 1.0},
        {"prompt_id": "0" * 32, "reward": 1.0},
        {"reward": 1.0},
        {"prompt": QUESTIONS[0]},
        {"prompt": QUESTIONS[0], "reward": "high"},
        {"prompt": QUESTIONS[0], "reward": 1.0, "step": -1},
        {"prompt": 3, "reward": 1.0},
    )
    assert found.rejected["reason_code"].to_list() == [
        "no_such_prompt",
        "no_such_prompt",
        "missing_field",
        "no_value",
        "not_a_number",
        "not_a_number",
        "not_text",
    ]
    assert found.n_unmatched == 2
    assert "Nobody asked this" in found.rejected["reason"][0]
    assert "Nobody asked this" in found.rejected["raw"][0]
    assert found.feedback.is_empty()


def test_a_prompt_without_its_response_speaks_of_all_of_them() -> None:
    known = prompts(QUESTIONS[0], responses=("a", "b"))
    found = read({"prompt": QUESTIONS[0], "correct": 1}, known=known)
    assert sorted(found.observations["prompt_id"]) == sorted(known["prompt_id"])


def test_a_text_that_quotes_a_prompt_is_not_that_prompt() -> None:
    quoting = f"Is this a good question: {QUESTIONS[0]} Say why."
    found = read({"prompt": quoting, "reward": 1.0}, {"prompt": [{"role": "user", "content": quoting}], "reward": 1.0})
    assert found.rejected["reason_code"].to_list() == ["no_such_prompt", "no_such_prompt"]


def test_a_chat_whose_system_message_the_training_added_is_found() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTIONS[0]}]
    assert read({"prompt": chat, "reward": 1.0}).feedback["prompt_id"].to_list() == [identity(QUESTIONS[0])]


@pytest.mark.parametrize("place", ["extra_info", "label"])
def test_an_id_that_a_trainer_handed_on_is_found(place: str) -> None:
    row = {place: {"prompt_id": identity(QUESTIONS[1])}, "reward": 1.0}
    assert read(row).feedback["prompt_id"].to_list() == [identity(QUESTIONS[1])]


def test_an_empty_file_is_an_error() -> None:
    with pytest.raises(SaerlError, match="source_empty"):
        read()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from(
    [
        "prompt_id",
        "prompt",
        "question",
        "step",
        "reward",
        "loss",
        "correct",
        "epoch",
        "input",
        "output",
        "score",
        "completion",
        "advantage",
        "manifest_id",
        "run_name",
        "level",
    ]
)


@given(st.lists(st.dictionaries(names, anything | st.sampled_from(QUESTIONS), max_size=8), min_size=1, max_size=5))
def test_whatever_a_row_holds_it_is_taken_or_kept_with_a_reason(rows: list[dict[str, object]]) -> None:
    found = read(*rows)
    taken = {int(line) for line in found.feedback["line"]} | {
        int(place.rpartition(":")[2]) for place in found.observations["place"]
    }
    rejected = set(found.rejected["line"].to_list())
    assert not taken & rejected
    assert found.rejected["reason"].str.len_chars().min() or found.rejected.is_empty()
    assert len(rejected) + int(found.feedback["n_completions"].sum()) + found.observations.height >= len(rows)


def feedback(rows: list[tuple[str, int, int, float | None, str]]) -> pl.DataFrame:
    columns = ["prompt_id", "step", "n_completions", "reward", "file_digest"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        run_name=pl.lit("r"), observed_at=pl.lit("2026-01-01").str.to_datetime()
    )


def test_of_a_log_that_came_again_the_fullest_counts() -> None:
    rows = feedback([("a", 0, 8, 0.5, "x"), ("a", 0, 8, 0.5, "y"), ("b", 0, 3, 0.1, "x"), ("b", 0, 8, 0.9, "y")])
    assert fullest(rows).sort("prompt_id").select("prompt_id", "reward").rows() == [("a", 0.5), ("b", 0.9)]


def test_the_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    difficulty = np.round(rng.normal(size=60), 1)
    reward = np.round(-difficulty + rng.normal(size=60), 1)
    rows = feedback([(f"p{place:02}", 0, 4, float(value), "x") for place, value in enumerate(reward)])
    scores = pl.DataFrame({"prompt_id": [f"p{place:02}" for place in range(60)], "difficulty": difficulty})
    n_prompts, correlation = difficulty_correlation(rows, scores, "reward")
    assert n_prompts == 60
    assert correlation == pytest.approx(spearmanr(difficulty, reward).statistic)
    assert difficulty_correlation(rows.head(2), scores, "reward") == (2, None)
