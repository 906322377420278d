"""A spec written as TOML is the same spec when it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.spec import parse_spec, spec_digest
from saerl_assets.domain.spec_text import spec_toml
from saerl_assets_tests.report.frames import a_spec

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = ("examples/demo/demo.toml", "examples/demo/small.toml", "examples/deepscaler.toml")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_spec_that_is_written_and_read_again_has_the_same_digest(name: str) -> None:
    spec = parse_spec((CHECKOUT / name).read_text(encoding="utf-8"), name)
    assert spec_digest(parse_spec(spec_toml(spec), "again")) == spec_digest(spec)


@settings(deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    share=st.floats(0.0, 0.5, exclude_min=True),
)
def test_any_text_and_number_comes_back_as_it_was(text: str, share: float) -> None:
    spec = a_spec()
    odd = spec.model_copy(
        update={
            "description": text,
            "data": spec.data.model_copy(update={"strip_prefix": text, "max_rejected_fraction": share}),
            "labels": {"difficulty": spec.labels["difficulty"], "correct": spec.labels["correct"]},
        }
    )
    again = parse_spec(spec_toml(odd), "again")
    assert again.description == text
    assert again.data.strip_prefix == text
    assert again.data.max_rejected_fraction == share
    assert spec_digest(again) == spec_digest(odd)
