"""Prompts found by what a log shows of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain import prompt_texts
from saerl_assets.domain.prompt_texts import PromptTexts, asked_text


def user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, object]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, object]:
    return {"role": "system", "content": text}


def test_the_longest_text_that_stands_alone_is_meant() -> None:
    texts = PromptTexts(
        [("short", "What is 2?"), ("long", "Add 1. What is 2?"), ("digit", "5"), ("twin", "Add 1.  What is 2?")]
    )
    assert texts.find("user: Add 1. What is 2? assistant:", anywhere=True) == ["long", "twin"]
    assert texts.find("user: What is 2? assistant:", anywhere=True) == ["short"]
    assert texts.find("user 5 assistant", anywhere=True) == ["digit"]
    assert texts.find("user 55 assistant", anywhere=True) == []
    assert texts.alias["twin"] == "long"


def test_without_leave_a_prompt_stands_between_the_names_of_user_and_assistant_only() -> None:
    texts = PromptTexts([("a", "What is 2?")])
    assert texts.find("user\nWhat is 2?\nassistant\n") == ["a"]
    assert texts.find("[INST] What is 2? [/INST]") == ["a"]
    assert texts.find("Somebody asked: What is 2? Why?") == []
    assert texts.find("Somebody asked: What is 2? Why?", anywhere=True) == ["a"]


def test_a_search_that_finds_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_texts, "_MAX_SEARCH", 1_000_000)
    shared = "Solve the following problem with care. "
    texts = PromptTexts((f"p{at}", f"{shared}{at}") for at in range(5_000))
    assert not any(texts.find(f"system user {shared}x{at} assistant", anywhere=True) for at in range(5_000))
    assert texts.gave_up
    assert texts.find(f"{shared}7", anywhere=True) == ["p7"]


def test_what_of_a_prompt_is_looked_for() -> None:
    assert asked_text([user("a"), said("b"), user("c  d\n")]) == asked_text(" c d ") == "c d"
    assert asked_text([user([{"type": "image"}, {"type": "text", "text": "see"}])]) == "see"
    assert asked_text([]) == ""
    assert asked_text("cafe\u0301") == asked_text("caf\u00e9")


def test_all_prompts_of_a_text_are_found_and_the_same_one_before_others() -> None:
    texts = PromptTexts(
        [
            ("plain", "Go on."),
            ("brief", [system("Be brief."), user("Go on.")]),
            ("story", [user("Tell a story."), said("Once"), user("Go on.")]),
            ("lines", "Go\non."),
            ("plain", "Go on."),
        ]
    )
    assert texts.find("Go on.") == ["plain"]
    assert texts.find("Go\non.") == ["lines"]
    assert texts.find("Go  on.") == ["plain", "brief", "story", "lines"]
    assert texts.find([system("Be brief."), user("Go on.")]) == ["brief"]
    assert texts.find([system("Be kind."), user("Go on.")]) == ["plain", "brief", "lines"]
    assert texts.find([user("Tell a story."), said("Once"), user("Go on.")]) == ["story"]
    assert texts.find([user("Sing."), said("La"), user("Go on.")]) == [], "another conversation"
    assert set(texts.alias.values()) == {"plain"}


@pytest.mark.parametrize("nothing", ["", " \n", [], [1], [{}], None, 7, [user("")], {"role": "user"}])
def test_what_is_no_prompt_is_found_nowhere(nothing: object) -> None:
    assert PromptTexts([("blank", ""), ("none", []), ("a", "x")]).find(nothing, anywhere=True) == []


TEMPLATES = ["{}", "user\n{}\nassistant\n", "system\nBe brief.\nuser\n{}\nassistant\n<think>\n", "[INST] {} [/INST]"]


@given(
    st.lists(st.text(min_size=1, max_size=30).filter(lambda text: bool(text.strip())), min_size=1, max_size=5),
    st.sampled_from(TEMPLATES),
    st.data(),
)
def test_every_prompt_is_found_in_every_template(prompts: list[str], template: str, data: st.DataObject) -> None:
    texts = PromptTexts((f"p{place}", prompt) for place, prompt in enumerate(prompts))
    place = data.draw(st.integers(0, len(prompts) - 1))
    found = texts.find([user(prompts[place])])
    assert f"p{place}" in found
    rendered = texts.find(template.format(prompts[place].strip()), anywhere=True)
    assert {asked_text(prompts[int(each[1:])]) for each in rendered}, "something is found"
