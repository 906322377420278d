"""Drafted specs: the right columns guessed, for the shapes that datasets come in, and always a valid spec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.domain.spec import KEY_PATTERN, VersionSpec, parse_spec
from saerl_assets.domain.spec_draft import draft_key, draft_spec

SUFFIX = " Let's think step by step and output the final answer within \\boxed{}."


def draft(values: list[dict[str, object]], source: str = "path:x.jsonl") -> tuple[str, VersionSpec]:
    rows = [SourceRow(place, place + 1, value) for place, value in enumerate(values)]
    text = draft_spec(rows, source=source, key="x-v1")
    return text, parse_spec(text, "draft")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_verls_five_columns() -> None:
    text, spec = draft(
        [
            {
                "data_source": "deepscaler",
                "prompt": [user(f"What is {n}?{SUFFIX}")],
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": str(n)},
                "extra_info": {"index": n, "split": "train", "difficulty": n * 7.5},
            }
            for n in range(8)
        ]
    )
    assert (spec.data.prompt, spec.data.answer) == ("prompt", "reward_model.ground_truth")
    assert spec.data.strip_suffix == SUFFIX
    assert {name: label.column for name, label in spec.labels.items()} == {"difficulty": "extra_info.difficulty"}
    assert spec.data.topic is None  # one value says nothing
    assert "0 to 52.5" in text
    assert "extra_info.index" in text


def test_gsm8k() -> None:
    text, spec = draft([{"question": f"Why {n}?", "answer": f"Because.\n#### {n}"} for n in range(8)])
    assert (spec.data.prompt, spec.data.answer, spec.labels) == ("question", "answer", {})
    assert "'####'" in text
    assert "such as 'Why 0?'" in text


def test_deepmath() -> None:
    _, spec = draft(
        [
            {
                "question": f"Why {n}?",
                "final_answer": n,
                "difficulty": n / 2,
                "topic": f"Topic {n % 3}",
                "r1_solution_1": "x",
            }
            for n in range(20)
        ]
    )
    assert (spec.data.prompt, spec.data.answer, spec.data.topic) == ("question", "final_answer", "topic")
    assert list(spec.labels) == ["difficulty"]


def test_prompts_and_completions() -> None:
    text, spec = draft([{"prompt": [user(f"Why {n}?")], "completion": [assistant("So.")]} for n in range(4)])
    assert (spec.data.prompt, spec.data.response) == ("prompt", None)
    assert '# response = "completion.0.content"' in text


def test_preferences_with_and_without_a_prompt_of_their_own() -> None:
    text, spec = draft([{"prompt": f"Why {n}?", "chosen": "So.", "rejected": "No."} for n in range(4)])
    assert (spec.data.prompt, spec.data.chosen, spec.data.rejected) == ("prompt", "chosen", "rejected")
    assert spec.data.response is None
    assert spec.exports.trainers == ("trl_dpo",)
    assert "verl" not in text
    conversations = {
        side: [[user(f"Why {n}? Answer in one sentence."), assistant(side)] for n in range(4)]
        for side in ("chosen", "rejected")
    }
    rows: list[dict[str, object]] = [{side: conversations[side][n] for side in conversations} for n in range(4)]
    text, spec = draft(rows)
    assert (spec.data.prompt, spec.data.chosen, spec.data.rejected) == ("chosen", "chosen", "rejected")
    assert "both begin with" in text
    assert spec.data.strip_suffix.strip() == "Answer in one sentence."
    _, spec = draft([row | {"prompt": f"Why {n}?", "messages": row["chosen"]} for n, row in enumerate(rows)])
    assert (spec.data.prompt, spec.data.chosen) == ("prompt", "chosen")


def test_preferences_as_transcripts_and_as_orca_has_them() -> None:
    _, spec = draft(
        [{side: f"\n\nHuman: Why {n}?\n\nAssistant: {side}" for side in ("chosen", "rejected")} for n in range(4)]
    )
    assert (spec.data.prompt, spec.data.chosen, spec.data.rejected) == ("chosen", "chosen", "rejected")
    _, spec = draft([{"system": "", "question": f"Why {n}?", "chosen": "So.", "rejected": "No."} for n in range(4)])
    assert (spec.data.prompt, spec.data.chosen, spec.data.rejected) == ("question", "chosen", "rejected")


def test_a_conversation_that_ends_in_its_answer_is_prompted_by_its_first_message() -> None:
    _, spec = draft([{"messages": [user(f"Why {n}?"), assistant("So.")]} for n in range(4)])
    assert spec.data.prompt == "messages.0.content"


def test_outcomes_and_splits() -> None:
    _, spec = draft([{"problem": f"Why {n}?", "pass_rate": n / 8, "split": ["train", "test"][n % 2]} for n in range(8)])
    assert {name: label.column for name, label in spec.labels.items()} == {"correct": "pass_rate"}
    assert spec.split.column == "split"
    _, percent = draft([{"problem": f"Why {n}?", "pass_rate": n * 10} for n in range(8)])
    assert percent.labels == {}  # not a share of correct outcomes


def test_without_a_telling_name_the_longest_text_is_the_prompt() -> None:
    _, spec = draft([{"id": f"row-{n}", "was_gefragt_wurde": f"Warum ist {n} eine Zahl?"} for n in range(4)])
    assert spec.data.prompt == "was_gefragt_wurde"


@pytest.mark.parametrize(("values", "code"), [([], "source_empty"), ([{"a": 1, "b": [2.5]}], "no_prompt_column")])
def test_what_cannot_be_a_source_of_prompts_is_an_error(values: list[dict[str, object]], code: str) -> None:
    with pytest.raises(SaerlError) as caught:
        draft(values)
    assert caught.value.code == code


VALUES = st.text(max_size=20) | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()


@given(
    st.lists(
        st.fixed_dictionaries(
            {"prompt": st.text(min_size=1)},
            optional={
                "answer": VALUES,
                "topic": VALUES,
                "a.b": VALUES,
                '"quoted"\n': VALUES,
                "difficulty": VALUES,
            },
        ),
        min_size=1,
        max_size=6,
    ),
    st.text(max_size=10),
)
def test_every_draft_is_a_valid_spec(values: list[dict[str, object]], name: str) -> None:
    _, spec = draft(values, source=f"path:{name}")
    assert spec.data.prompt == "prompt"


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("path:data/My Rows.jsonl", "my-rows-v1"),
        ("hf:openai/gsm8k@main#main/train", "gsm8k-v1"),
        ("gym:tasks.toml", "tasks-v1"),
        ("gsm8k_train.parquet", "gsm8k-train-v1"),
        ("path:../日本.csv", "data-v1"),
    ],
)
def test_a_key_is_made_of_the_sources_name(source: str, key: str) -> None:
    assert draft_key(source) == key
    assert KEY_PATTERN.fullmatch(key)
