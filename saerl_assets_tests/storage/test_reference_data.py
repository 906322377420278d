"""Real files as users have them: published prompts, with their repeats and contradictions.

They are not part of the project. `SAERL_REFERENCE_DATA` names a folder with `deepscaler_passrate.parquet`
(github.com/limenlp/verl, verl/data/deepscaler_uniform_train.parquet, Apache-2.0) and `gsm8k_train.jsonl`
(github.com/openai/grade-school-math, MIT).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from saerl_assets.domain.labels import fold_labels
from saerl_assets.domain.prompts import Intake, TokenisedText, check_rejected, take_prompts
from saerl_assets.domain.spec import parse_spec
from saerl_assets.domain.spec_draft import draft_key, draft_spec
from saerl_assets.storage.sources import read_source, resolve_source

EXAMPLE = Path(__file__).parents[2] / "examples" / "deepscaler.toml"
INSTRUCTION = " Let's think step by step and output the final answer within \\boxed{}."


def reference(name: str) -> Path:
    folder = os.environ.get("SAERL_REFERENCE_DATA")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"SAERL_REFERENCE_DATA names no folder with {name}")
    return Path(folder)


def count_words(prompts: Sequence[object], responses: Sequence[str | None]) -> list[TokenisedText]:
    return [TokenisedText([1] * len(str(prompt).split()), 0) for prompt, _ in zip(prompts, responses, strict=True)]


@pytest.fixture(scope="module")
def deepscaler() -> Intake:
    spec = parse_spec(EXAMPLE.read_text(), EXAMPLE.name)
    source = resolve_source(spec.data.source, reference("deepscaler_passrate.parquet"))
    intake = take_prompts(read_source(source), spec, count_words, file=Path(source.location).name)
    check_rejected(intake, spec)
    return intake


def test_the_example_is_a_spec() -> None:
    assert parse_spec(EXAMPLE.read_text(), EXAMPLE.name).key == "deepscaler-v1"


def test_repeats_fold_and_contradictions_are_rejected(deepscaler: Intake) -> None:
    counts = deepscaler.counts
    assert counts["rows"] == 10_000
    assert counts["prompts"] + counts["answer_conflicts"] == 7_601  # as many as there are byte for byte
    assert counts["answer_conflicts"] == 7
    assert counts["rejected"] == 20
    assert counts["duplicates_folded"] == 2_386
    assert set(deepscaler.rejected["reason_code"]) == {"answer_conflict"}


def test_labels_that_disagree_are_averaged(deepscaler: Intake) -> None:
    labels = fold_labels(deepscaler.observations)
    assert deepscaler.counts["label_conflicts"] == 42
    assert deepscaler.counts["label_conflicts_folded"] == int((labels["spread"] > 0).sum()) == 35
    assert labels.height == deepscaler.prompts.height
    assert labels["value"].is_between(0, 100).all()


def test_the_instruction_is_left_out_for_reading_only(deepscaler: Intake) -> None:
    assert deepscaler.affixes == {"prefix": "", "suffix": INSTRUCTION}
    assert deepscaler.counts["prompts_without_suffix"] == 0
    assert not deepscaler.prompts["text"].str.contains("step by step and output").any()
    assert deepscaler.prompts["messages"].str.contains("step by step and output").all()


def test_what_the_spec_does_not_name_is_carried_along(deepscaler: Intake) -> None:
    assert deepscaler.prompts["extra"].str.json_path_match("$.reward_model.style").unique().to_list() == ["rule"]
    assert deepscaler.prompts["extra"].str.json_path_match("$.extra_info.index").null_count() == 0


def test_a_spec_for_gsm8k_is_drafted() -> None:
    source = resolve_source("path:gsm8k_train.jsonl", reference("gsm8k_train.jsonl"))
    text = draft_spec(read_source(source), source="path:gsm8k_train.jsonl", key=draft_key("path:gsm8k_train.jsonl"))
    spec = parse_spec(text, "draft")
    assert (spec.key, spec.data.prompt, spec.data.answer) == ("gsm8k-train-v1", "question", "answer")
    intake = take_prompts(read_source(source), spec, count_words, file="gsm8k_train.jsonl")
    assert (intake.counts["rows"], intake.counts["rejected"]) == (7_473, 0)
