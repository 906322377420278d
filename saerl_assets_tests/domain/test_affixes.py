"""Shared text at the ends of prompts: found, cut at a word, stripped only where that is safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.affixes import AUTO, Affixes, AffixFinder, CommonSuffix

INSTRUCTION = " Let's think step by step."
WORDS = st.lists(st.sampled_from(["a", "bb", "step", "by", "think"]), min_size=1, max_size=6).map(" ".join)


def suffix_of(*texts: str) -> str:
    common = CommonSuffix()
    for text in texts:
        common.add(text)
    return common.found()


def test_the_longest_common_suffix_is_found() -> None:
    assert suffix_of(f"1 + 1?{INSTRUCTION}", f"2 + 2 = ?{INSTRUCTION}", f"x.{INSTRUCTION}") == INSTRUCTION


def test_it_starts_at_a_word_boundary() -> None:
    assert suffix_of("cats think step by step", "rats think step by step") == " think step by step"
    assert suffix_of("think step by step", "rethink step by step") == " step by step"
    assert suffix_of("one.\nthink step by step", "two. think step by step") == "think step by step"
    assert suffix_of("one.think step by step", "two.think step by step") == " step by step"


@pytest.mark.parametrize(
    "texts",
    [
        ("only one prompt, whatever it says",),
        ("one short end", "two short end"),
        ("nothing", "in common"),
        (INSTRUCTION.strip(), f"1 + 1?{INSTRUCTION}"),
        (INSTRUCTION.strip(), INSTRUCTION.strip()),
    ],
)
def test_it_is_left_alone_where_it_may_be_chance_or_the_whole_prompt(texts: tuple[str, ...]) -> None:
    assert suffix_of(*texts) == ""


@given(st.lists(WORDS, min_size=2, max_size=6), st.sampled_from(["", INSTRUCTION, " by step by step by"]))
def test_one_pass_finds_what_comparing_all_texts_finds(stems: list[str], end: str) -> None:
    texts = [stem + end for stem in stems]
    whole = next(
        texts[0][start:] for start in range(len(texts[0]) + 1) if all(t.endswith(texts[0][start:]) for t in texts)
    )
    found = suffix_of(*texts)
    assert whole.endswith(found)
    for text in texts:
        rest = text.removesuffix(found)
        assert rest.strip()
        if found:
            assert found[0].isspace() or rest[-1].isspace()
    # Nothing between the found suffix and the longest one starts at a word boundary in all texts.
    if found:
        for start in range(len(whole) - len(found)):
            longer = whole[start:]
            boundary = longer[0].isspace() or all(
                len(text) == len(longer) or text[-len(longer) - 1].isspace() for text in texts
            )
            assert not boundary or any(len(text) == len(longer) for text in texts)


def test_prefix_and_suffix_are_found_together() -> None:
    finder = AffixFinder(AUTO, AUTO)
    for number in ("one", "two", "three"):
        finder.add(f"Solve this problem: {number}{INSTRUCTION}")
    affixes = finder.found()
    assert affixes == Affixes("Solve this problem: ", INSTRUCTION)
    assert affixes.strip(f"Solve this problem: four{INSTRUCTION}") == "four"


def test_a_literal_affix_is_sought_in_canonical_text() -> None:
    finder = AffixFinder("Q:\r\n", f"{INSTRUCTION}\n")
    assert finder.found() == Affixes("Q:\n", INSTRUCTION)
    assert AffixFinder("", " \n").found() == Affixes()


def test_a_prompt_that_lacks_an_affix_or_is_nothing_else_keeps_its_text() -> None:
    affixes = Affixes("Question: ", INSTRUCTION)
    assert affixes.strip("Question: why?") == "why?"
    assert affixes.strip(f"Why?{INSTRUCTION}") == "Why?"
    assert affixes.strip(INSTRUCTION) == INSTRUCTION
    assert affixes.lacks_prefix("Why?")
    assert affixes.lacks_suffix(INSTRUCTION)
    assert not affixes.lacks_suffix(f"Why?{INSTRUCTION}")
    assert not Affixes().lacks_prefix("Why?")
