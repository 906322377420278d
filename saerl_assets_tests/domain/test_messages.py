"""What is the same prompt, and what is none."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.fields import MISSING, RowError
from saerl_assets.domain.messages import (
    as_text,
    asking_message,
    canonical_messages,
    canonical_response,
    canonical_text,
    prompt_id,
)


@given(st.text())
def test_canonical_text_is_a_fixed_point(text: str) -> None:
    once = canonical_text(text)
    assert canonical_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert "\r\n" not in once
    assert once == once.strip()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r")), st.text(" \t\n", max_size=3))
def test_notation_of_the_same_text_does_not_matter(text: str, around: str) -> None:
    written = around + unicodedata.normalize("NFD", text).replace("\n", "\r\n") + around
    assert canonical_text(written) == canonical_text(text)


def test_a_string_is_one_user_message_and_has_its_identity() -> None:
    as_string, is_chat = canonical_messages(" Hi\r\n", "prompt")
    as_chat, is_other_chat = canonical_messages([{"content": "Hi", "role": "user", "name": None}], "prompt")
    assert as_string == as_chat == [{"role": "user", "content": "Hi"}]
    assert (is_chat, is_other_chat) == (False, True)
    assert prompt_id(as_string, None) == prompt_id(as_chat, None)


def test_identity_is_stable_and_tells_messages_roles_and_responses_apart() -> None:
    hi = [{"role": "user", "content": "Hi"}]
    ids = {
        prompt_id(hi, None),
        prompt_id(hi, "Hello"),
        prompt_id([{"role": "system", "content": "Hi"}], None),
        prompt_id([*hi, *hi], None),
    }
    assert len(ids) == 4
    # SHA-256 of {"messages":[{"content":"Hi","role":"user"}],"response":null}: stored ids depend on it
    assert prompt_id(hi, None) == "ba68742b3c8bfbeca52be772f5553e0f"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (MISSING, "missing_field"),
        (None, "null_prompt"),
        (" \n\t", "blank_prompt"),
        (7, "not_text"),
        (True, "not_text"),
        ({"role": "user", "content": "Hi"}, "not_text"),
        ([], "bad_messages"),
        (["Hi"], "bad_messages"),
        ([{"content": "Hi"}], "bad_messages"),
        ([{"role": "user"}], "bad_messages"),
        ([{"role": "user", "content": None}], "bad_messages"),
        ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "bad_messages"),
        ([{"role": " ", "content": "Hi"}], "bad_messages"),
        ([{"role": "system", "content": "Be kind."}, {"role": "user", "content": " "}], "blank_prompt"),
        ("half \ud83d", "not_utf8"),
    ],
)
def test_no_prompt_is_named_by_its_reason(value: object, code: str) -> None:
    with pytest.raises(RowError) as caught:
        canonical_messages(value, "prompt")
    assert caught.value.code == code
    assert caught.value.reason.endswith(".")


def test_affixes_belong_to_the_last_user_message() -> None:
    def turn(role: str) -> dict[str, str]:
        return {"role": role, "content": "x"}

    assert asking_message([turn("system"), turn("user"), turn("assistant")]) == 1
    assert asking_message([turn("user"), turn("user")]) == 1
    assert asking_message([turn("system"), turn("tool")]) == 1


def test_a_response_is_needed_only_where_it_is_read() -> None:
    assert canonical_response(" yes\r\n", "response", is_needed=True) == "yes"
    for nothing in (MISSING, None, "  "):
        assert canonical_response(nothing, "response", is_needed=False) is None
        with pytest.raises(RowError, match="missing_response"):
            canonical_response(nothing, "response", is_needed=True)
    with pytest.raises(RowError, match="not_text"):
        canonical_response([{"role": "assistant", "content": "yes"}], "response", is_needed=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (72, "72"),
        (1.5, "1.5"),
        (72.0, "72.0"),
        (True, "true"),
        (" 65 \\frac{4}{5} ", "65 \\frac{4}{5}"),
        ("", None),
        (None, None),
        (MISSING, None),
        (float("nan"), None),
    ],
)
def test_answers_become_text_as_json_writes_them(value: object, text: str | None) -> None:
    assert as_text(value, "answer") == text


@pytest.mark.parametrize(("value", "code"), [(["3"], "not_text"), ({"a": 3}, "not_text"), ("\ud800", "not_utf8")])
def test_an_answer_that_is_no_single_value_is_refused(value: object, code: str) -> None:
    with pytest.raises(RowError, match=code):
        as_text(value, "answer")
