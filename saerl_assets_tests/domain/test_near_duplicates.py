# ruff: noqa: RUF001 - letters of other scripts are what is tested
from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from saerl_assets.domain.near_duplicates import (
    PAIRS_SCHEMA,
    NearDuplicates,
    find_near_duplicates,
    folded_reasons,
    prompt_keys,
    read_texts,
)
from saerl_assets.domain.spec import HygieneSpec
from saerl_assets_tests.domain.feature_sets import feature_set
from saerl_assets_tests.domain.table_shapes import assert_is_table

LONG = "A farmer keeps 12 hens and 3 goats in a yard beside the old mill. How many legs do all of them have together?"


def prompts_of(*texts: str, answers: list[str | None] | None = None, splits: str = "") -> pl.DataFrame:
    """Prompts a, b, c and so on; splits has an e where one is set apart."""
    return pl.DataFrame(
        {
            "prompt_id": [chr(ord("a") + place) for place in range(len(texts))],
            "text": texts,
            "response": [None] * len(texts),
            "answer": answers or [None] * len(texts),
            "split": ["evaluation" if splits[place : place + 1] == "e" else "train" for place in range(len(texts))],
        },
        schema_overrides=dict.fromkeys(["prompt_id", "text", "response", "answer", "split"], pl.String),
    )


def find(prompts: pl.DataFrame, rows: np.ndarray | None = None, **settings: object) -> NearDuplicates:
    """By default no two prompts share a feature."""
    n = prompts.height
    matrix = np.eye(n, dtype=np.float32) if rows is None else rows
    assignments = pl.DataFrame({"prompt_id": prompts["prompt_id"], "cluster_id": [0] * n, "similarity": [0.5] * n})
    spec = HygieneSpec.model_validate(settings)
    features = feature_set(matrix, prompt_ids=prompts["prompt_id"].to_list())
    found = find_near_duplicates(prompts, features, assignments, spec, "max")
    assert_is_table(found.groups, "near_duplicates")
    assert found.pairs.schema == PAIRS_SCHEMA
    return found


def grouped(found: NearDuplicates) -> list[str]:
    return ["".join(group["prompt_id"]) for group in found.groups.partition_by("group_id", maintain_order=True)]


@pytest.mark.parametrize(
    "copy",
    [
        LONG.upper(),
        LONG.replace("?", "").replace(".", " --"),
        LONG.replace("beside", "besides"),
        LONG.replace("together", "togehter"),
        LONG.replace("farmer", "miller"),
        LONG.replace(" ", "  ").replace("3 goats", "three goats"),
        "How many legs do all of them have together? A farmer keeps 12 hens and 3 goats in a yard beside the old mill.",
    ],
)
def test_copies_with_small_changes_are_found(copy: str) -> None:
    found = find(prompts_of(LONG, "Something else entirely, with 12 and 3 in it.", copy))
    assert grouped(found) == ["ac"]
    assert found.groups["found_by"].to_list() == ["text", "text"]
    assert found.groups["nearest"].to_list() == ["c", "a"]


@pytest.mark.parametrize(("old", "new"), [("12 hens", "13 hens"), ("12 hens", "-12 hens"), ("3 goats", "3.5 goats")])
def test_another_number_is_another_problem(old: str, new: str) -> None:
    rows = np.ones((2, 3), dtype=np.float32)
    assert find(prompts_of(LONG, LONG.replace(old, new)), rows).groups.is_empty()


BAKER = (
    "A baker has 12 trays of rolls and sells 45 of the rolls on Monday before noon. He then shares what is left among "
    "his neighbours. If each tray holds the same number, how many trays are empty in the end, and how many rolls does "
    "the baker keep for himself on that day?"
)
WALK = (
    "Three friends walk to the market and back. On the way there they walk uphill at a speed that is twice as slow as "
    "on the way back. How long does the whole walk take if the way there takes two hours?"
)
CURVE = (
    "Let f be a function with f(x) = x^2 - 3 for all real x; determine whether the function is increasing on the "
    "positive half line and justify your answer in one sentence."
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (BAKER, BAKER.replace("12", "@").replace("45", "12").replace("@", "45")),
        (WALK, WALK.replace("two hours", "six hours")),
        (WALK, WALK.replace("twice", "half")),
        ("What is 7 mod 3", "What is 3 mod 7"),
        ("Solve 8 - 3", "Solve 3 - 8"),
        ("What is 12/4", "What is 4/12"),
        ("Is 5 < 7?", "Is 5 > 7?"),
        ("Find x^2 for x=3", "Find x^3 for x=2"),
    ],
)
def test_swapped_operands_number_words_and_signs_make_another_problem(one: str, other: str) -> None:
    """However alike they read, and although the same features fire."""
    assert find(prompts_of(one, other), np.ones((2, 3), dtype=np.float32), min_jaccard=0.01).groups.is_empty()
    assert find(prompts_of(one, one.upper())).groups.height == 2


def test_a_word_that_turns_the_meaning_is_not_known() -> None:
    assert grouped(find(prompts_of(CURVE, CURVE.replace("increasing", "decreasing")))) == ["ab"]


def test_another_short_answer_is_another_problem_and_an_unknown_one_is_not() -> None:
    texts = "Sort these words: pear, apple", "Sort these words: pear, apples"
    assert grouped(find(prompts_of(*texts, answers=["apple, pear", "apple, pear"]))) == ["ab"]
    assert find(prompts_of(*texts, answers=["apple, pear", "apples, pear"])).groups.is_empty()
    assert grouped(find(prompts_of(*texts, answers=["apple, pear", None]))) == ["ab"]
    assert grouped(find(prompts_of(*texts, answers=["-", "?"]))) == []


def test_features_find_what_words_do_not() -> None:
    rows = np.array([[1, 1, 0], [1, 1.05, 0], [0, 0, 1]], dtype=np.float32)
    prompts = prompts_of("How tall is he?", "What is his height?", "Who goes there?")
    found = find(prompts, rows)
    assert grouped(found) == ["ab"]
    assert found.groups["found_by"].to_list() == ["features"] * 2
    assert found.groups["similarity"][0] == pytest.approx(0.9997, abs=1e-4)
    assert grouped(find(prompts, rows, min_similarity=1.0)) == []
    both = find(prompts_of("How tall is he?", "how tall is he", "Who goes there?"), rows)
    assert both.groups["found_by"].to_list() == ["both"] * 2


def test_groups_are_connected_and_the_smallest_training_prompt_stands_for_each() -> None:
    rows = np.array([[1, 0, 0.25], [1, 0, 0], [1, 0.25, 0], [0, 1, 0], [0, 1, 0.01]], dtype=np.float32)
    found = find(prompts_of("hens", "goats", "cows", "pigs", "sheep", splits="e...."), rows)
    assert grouped(found) == ["abc", "de"]
    pairs = set(found.pairs.select("prompt_id", "other_id").iter_rows())
    assert ("a", "c") not in pairs, "a chain, not a clique"
    assert {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")} < pairs
    assert dict(found.groups.select("prompt_id", "representative").iter_rows()) == dict(
        zip("abcde", "bbbdd", strict=True)
    )
    assert found.groups["role"].to_list() == ["evaluation", "representative", "copy", "representative", "copy"]
    assert found.groups["n_prompts"].to_list() == [3, 3, 3, 2, 2]


def test_a_group_of_evaluation_prompts_has_no_copy_to_fold() -> None:
    found = find(prompts_of(LONG, LONG.upper(), splits="ee"), near_duplicates="fold")
    assert found.groups["role"].to_list() == ["evaluation"] * 2
    assert found.groups["representative"].to_list() == ["a", "a"]
    assert folded_reasons(found.groups, HygieneSpec(near_duplicates="fold")).is_empty()


def test_copies_are_folded_only_where_the_spec_says_so() -> None:
    found = find(prompts_of(LONG, LONG.upper(), LONG + "!"))
    assert folded_reasons(found.groups, HygieneSpec()).is_empty()
    folded = folded_reasons(found.groups, HygieneSpec(near_duplicates="fold"))
    assert folded["prompt_id"].to_list() == ["b", "c"]
    assert folded["reason"][0].endswith("prompt a stands for all 3 of its group.")
    assert "text overlap 1.0, feature cosine 0.0" in folded["reason"][0]


def test_the_order_of_prompts_in_the_source_plays_no_part() -> None:
    one = find(prompts_of(LONG, "other", LONG.upper()))
    assert one.groups.equals(find(prompts_of(LONG, "other", LONG.upper())).groups)
    assert one.groups["representative"].unique().to_list() == ["a"]


def test_all_prompts_nearly_equal_are_one_group() -> None:
    found = find(prompts_of(*(LONG + "!" * n for n in range(26))), np.ones((26, 2), dtype=np.float32))
    assert grouped(found) == ["abcdefghijklmnopqrstuvwxyz"]
    assert folded_reasons(found.groups, HygieneSpec(near_duplicates="fold")).height == 25


@pytest.mark.parametrize("texts", [["one"], ["", "x"], ["!?", "..."], []])
def test_one_prompt_none_and_texts_without_words(texts: list[str]) -> None:
    assert find(prompts_of(*texts)).groups.is_empty()


def test_texts_without_words_that_are_the_same_are_near() -> None:
    assert grouped(find(prompts_of("?!", "?! ", "🎉🎉", "🎉  🎉"))) in (["ab", "cd"], ["cd"])


@pytest.mark.parametrize(
    ("one", "other", "far"),
    [
        (
            "小明有三个苹果，又买了两个，现在一共有几个苹果？",
            "小明有三个苹果，又买了两个，现在一共有几个苹果",
            "今天天气很好，我们去公园散步吧，好不好呢？",
        ),
        (
            "Сколько ног у трёх кошек и одного паука?",
            "сколько ног у трёх кошек и одного паука",
            "Кто написал роман «Война и мир»?",
        ),
        (
            "كم عدد الأرجل لثلاث قطط وعنكبوت واحد؟",
            "كم عدد الأرجل لثلاث قطط وعنكبوت واحد",
            "من كتب هذه الرواية الطويلة؟",
        ),
    ],
)
def test_other_scripts(one: str, other: str, far: str) -> None:
    assert grouped(find(prompts_of(one, other, far))) == ["ab"]


def test_responses_to_one_question_are_no_copies_of_each_other() -> None:
    prompts = prompts_of(LONG, LONG, LONG).with_columns(
        response=pl.Series(["Hens have 24 legs, goats 12: 36.", "I do not know at all, sorry.", None])
    )
    assert find(prompts).groups.is_empty()
    assert read_texts(prompts)[0].endswith("36.")
    assert len(set(prompt_keys(prompts).tolist())) == 2
