"""Whose log a row is of, and the prompt that it names."""

from __future__ import annotations

import pytest

from saerl_assets.domain.log_formats import log_format, named_prompt


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (["manifest_id", "step", "prompt_id", "reward"], "saerl_log"),
        (["step", "prompt", "completion", "reward_func", "advantage"], "trl"),
        (["input", "output", "gts", "score", "step"], "verl"),
        (["prompt", "completion", "reward"], "plain"),
        (["prompt_id", "step", "reward"], "plain"),
        ([], "plain"),
    ],
)
def test_a_row_is_known_by_its_fields(fields: list[str], kind: str) -> None:
    assert log_format(fields) == kind


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"prompt_id": "a", "extra_info": {"prompt_id": "b"}}, "a"),
        ({"saerl_prompt_id": "a"}, "a"),
        ({"extra_info": {"prompt_id": "b"}}, "b"),
        ({"label": {"saerl_prompt_id": "c"}}, "c"),
        ({"prompt_id": "", "label": {"prompt_id": "c"}}, "c"),
        ({"prompt_id": 3, "extra_info": "b", "label": 1.0}, None),
        ({}, None),
    ],
)
def test_the_prompt_that_a_row_names(row: dict[str, object], named: str | None) -> None:
    assert named_prompt(row) == named
