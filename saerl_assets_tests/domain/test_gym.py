"""The demo's tasks: the mix, its rows, the scoring, and the recorded rollouts that belong to them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.gym import (
    CORRECT_SCORE,
    TaskMix,
    extract_answer,
    generate_rows,
    parse_tasks,
    score_answer,
)

DEMO = Path(__file__).parents[2] / "examples" / "demo"
TASKS = DEMO / "tasks.toml"
ROLLOUTS = DEMO / "rollouts.parquet"


def small_mix(**changes: object) -> dict[str, object]:
    """A document for `parse_tasks`: two families with three settings together."""
    families: list[dict[str, object]] = [
        {"name": "gcd", "settings": [{"max_value": 30}, {"max_value": 500}]},
        {"name": "chain_sum", "settings": [{"max_terms": 3, "max_digits": 1}], "suffix": "Number only."},
    ]
    return {"seed": 7, "n_rows": 30, "suffix": "Answer only.", "families": families, **changes}


def one_family(name: str, *settings: dict[str, object], n_rows: int = 30) -> dict[str, object]:
    """A document for `parse_tasks` with a single family."""
    return small_mix(n_rows=n_rows, families=[{"name": name, "settings": list(settings)}])


@pytest.fixture(scope="module")
def demo_mix() -> TaskMix:
    return parse_tasks(tomllib.loads(TASKS.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def demo_rows(demo_mix: TaskMix) -> list[dict[str, Any]]:
    return list(generate_rows(demo_mix))


@pytest.fixture(scope="module")
def rollouts() -> pl.DataFrame:
    return pl.read_parquet(ROLLOUTS)


def setting_of(row: dict[str, Any]) -> tuple[str, int]:
    return row["family"], row["level"]


class TestRows:
    def test_they_repeat_with_the_seed_and_change_with_it(self) -> None:
        rows = list(generate_rows(parse_tasks(small_mix())))
        assert rows == list(generate_rows(parse_tasks(small_mix())))
        assert rows != list(generate_rows(parse_tasks(small_mix(seed=8))))

    def test_a_shorter_dataset_is_the_start_of_a_longer_one(self) -> None:
        rows = list(generate_rows(parse_tasks(small_mix(n_rows=40))))
        assert list(generate_rows(parse_tasks(small_mix(n_rows=25)))) == rows[:25]

    def test_a_family_keeps_its_rows_when_another_one_joins(self) -> None:
        alone = generate_rows(parse_tasks(one_family("gcd", {"max_value": 30}, {"max_value": 500})))
        mixed = [row for row in generate_rows(parse_tasks(small_mix(n_rows=45))) if row["family"] == "gcd"]
        assert mixed == list(alone)

    def test_they_hold_what_a_source_and_a_scorer_need(self) -> None:
        row = next(generate_rows(parse_tasks(small_mix())))
        assert set(row) == {"prompt", "answer", "family", "level", "task_id", "metadata"}
        assert (row["family"], row["level"]) == ("gcd", 0)
        assert row["task_id"] == "gcd/0/0"
        assert isinstance(json.loads(str(row["metadata"])), dict)

    def test_a_prompt_ends_in_its_familys_instruction_or_the_mixs(self) -> None:
        for row in generate_rows(parse_tasks(small_mix())):
            own = "Number only." if row["family"] == "chain_sum" else "Answer only."
            assert str(row["prompt"]).endswith(f"\n{own}")

    def test_without_an_instruction_a_prompt_is_the_question(self) -> None:
        rows = generate_rows(parse_tasks({**one_family("gcd", {"max_value": 30}), "suffix": ""}))
        assert str(next(rows)["prompt"]).endswith("Give only the GCD as your final answer.")

    def test_a_setting_that_runs_out_ends_and_the_others_go_on(self) -> None:
        # Of one-digit products there are 10 x 10.
        mix = parse_tasks(one_family("products", {"max_digits": 1}, {"min_digits": 3}, n_rows=300))
        rows = list(generate_rows(mix))
        assert Counter(row["level"] for row in rows) == {0: 100, 1: 200}
        assert len({row["prompt"] for row in rows}) == 300

    def test_a_mix_that_runs_out_gives_what_there_is(self) -> None:
        assert len(list(generate_rows(parse_tasks(one_family("products", {"max_digits": 1}, n_rows=500))))) == 100

    def test_settings_of_the_same_family_share_no_prompt(self) -> None:
        rows = list(generate_rows(parse_tasks(one_family("gcd", {"max_value": 30}, {"max_value": 30}, n_rows=200))))
        assert len({row["prompt"] for row in rows}) == 200


class TestMistakes:
    @pytest.mark.parametrize(
        ("document", "code", "named"),
        [
            (small_mix(sed=1), "tasks_invalid", "sed"),
            (small_mix(n_rows=0), "tasks_invalid", "n_rows"),
            (small_mix(families=[]), "tasks_invalid", "families"),
            ({"seed": 1, "n_rows": 3}, "tasks_invalid", "families"),
            (small_mix(families=[{"name": "gcd", "setings": []}]), "tasks_invalid", "setings"),
            (one_family("gcd"), "tasks_invalid", "families.0.settings"),
            (one_family("gcd", {"max_value": 9}, {}), "tasks_invalid", "setting 1 is empty"),
            (one_family("gcd", {"max_value": 9, "seed": 3}), "tasks_invalid", "gives seed"),
            (
                small_mix(families=[{"name": "gcd", "settings": [{"max_value": 9}]}] * 2),
                "tasks_invalid",
                "gcd",
            ),
            (one_family("gdc", {"max_value": 9}), "family_unknown", "gcd"),
            (one_family("@", {"max_value": 9}), "family_unknown", "word_sorting"),
            (one_family("gcd", {"maximum": 9}), "setting_invalid", "max_value"),
            (
                one_family("gcd", {"min_value": 9, "max_value": 2}),
                "setting_invalid",
                "families.gcd.settings.0",
            ),
        ],
    )
    def test_each_is_named_with_a_remedy_before_the_first_row(
        self, document: dict[str, object], code: str, named: str
    ) -> None:
        with pytest.raises(SaerlError) as caught:
            generate_rows(parse_tasks(document))
        assert caught.value.code == code
        assert named in str(caught.value)
        assert caught.value.remedy

    def test_a_family_without_reference_answers_is_refused(self) -> None:
        with pytest.raises(SaerlError, match="answer_missing"):
            list(generate_rows(parse_tasks(one_family("propositional_logic", {"max_vars": 3}))))

    def test_without_reasoning_gym_the_remedy_is_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "reasoning_gym", None)
        with pytest.raises(SaerlError, match="gym_missing") as caught:
            generate_rows(parse_tasks(small_mix()))
        assert caught.value.remedy == "pip install 'saerl_assets[demo]'"


class TestAnswers:
    @pytest.mark.parametrize(
        ("completion", "like", "answer"),
        [
            ("12 + 30 = 42.", "7", "42"),
            ("The answer is **7**, since 3 + 4 = 12.\nSee 99.", "5", "12"),
            ("Answer: 3\nNo wait.\nAnswer: 4", "5", "4"),
            (r"It is \boxed{8}. The answer is 9.", "5", "8"),
            ("That makes 1,234,567", "5", "1234567"),
            ("5-3 is 2 and -4 is less", "5", "-4"),
            ("so 6/21 = 2/7", "1/2", "2/7"),
            ("about 3.50.", "1.5", "3.50"),
            ("I cannot say.", "5", None),
            ("", "5", None),
            ("Yes, it does. No doubt.", "No", "Yes"),
            ("it is FALSE", "True", "False"),
            ("Nobody knows", "No", None),
            ("Sure!\n\nThe sorted list: `b, a`.\n", "x, y", "b, a"),
            ("1. Friday", "Monday", "Friday"),
            ("**\n", "Monday", None),
        ],
    )
    def test_the_answer_is_taken_by_the_references_kind(self, completion: str, like: str, answer: str | None) -> None:
        assert extract_answer(completion, like=like) == answer

    def test_the_references_value_does_not_matter(self) -> None:
        assert extract_answer("2 or 3", like="2") == extract_answer("2 or 3", like="3") == "3"

    def test_a_reference_is_a_right_answer_to_itself(self, demo_rows: list[dict[str, Any]]) -> None:
        firsts = {setting_of(row): row for row in reversed(demo_rows)}.values()
        for row in firsts:
            assert score_answer(row, row["answer"]) >= CORRECT_SCORE, row["task_id"]
            extracted = extract_answer(f"The answer is {row['answer']}.", like=row["answer"])
            assert score_answer(row, extracted) >= CORRECT_SCORE, row["task_id"]

    @pytest.mark.parametrize("answer", [None, "", "1/0", "nan", "[1,", "no idea", "-", "9" * 400])
    def test_nonsense_scores_without_an_error(self, demo_rows: list[dict[str, Any]], answer: str | None) -> None:
        firsts = {setting_of(row): row for row in reversed(demo_rows)}.values()
        for row in firsts:
            assert 0.0 <= score_answer(row, answer) < CORRECT_SCORE, row["task_id"]

    def test_what_a_scorer_cannot_parse_scores_zero(self) -> None:
        row = next(generate_rows(parse_tasks(one_family("prime_factorization", {"max_value": 90}))))
        assert score_answer(row, str(row["answer"])) == 1.0
        assert score_answer(row, "two times two") == 0.0


class TestDemo:
    def test_it_has_two_thousand_rows_of_many_families_and_levels(
        self, demo_mix: TaskMix, demo_rows: list[dict[str, Any]]
    ) -> None:
        assert len(demo_rows) == demo_mix.n_rows == 2000
        levels = Counter(family for family, _ in {setting_of(row) for row in demo_rows})
        assert len(levels) >= 8
        assert min(levels.values()) >= 3

    def test_no_prompt_and_no_task_comes_twice(self, demo_rows: list[dict[str, Any]]) -> None:
        assert len({row["prompt"] for row in demo_rows}) == len(demo_rows)
        assert len({row["task_id"] for row in demo_rows}) == len(demo_rows)

    def test_every_prefix_is_balanced(self, demo_rows: list[dict[str, Any]]) -> None:
        settings = {setting_of(row) for row in demo_rows}
        counts = dict.fromkeys(settings, 0)
        for row in demo_rows:
            counts[setting_of(row)] += 1
            assert max(counts.values()) - min(counts.values()) <= 1

    def test_its_rows_do_not_depend_on_the_process(self, demo_rows: list[dict[str, Any]]) -> None:
        # Iterating over a set would: Python's string hashes differ from process to process.
        program = (
            "import json, sys, tomllib; from saerl_assets.domain.gym import generate_rows, parse_tasks;"
            "rows = generate_rows(parse_tasks(tomllib.loads(sys.stdin.read())));"
            "print(json.dumps([row['prompt'] for row in rows]))"
        )
        prompts = [row["prompt"] for row in demo_rows]
        answer = subprocess.run(
            [sys.executable, "-c", program],
            input=TASKS.read_text(encoding="utf-8"),
            env={"PYTHONHASHSEED": "12345", "PYTHONPATH": str(DEMO.parents[1])},
            capture_output=True,
            check=True,
            text=True,
        )
        assert json.loads(answer.stdout) == prompts


class TestRecordedRollouts:
    def test_they_are_eight_of_each_of_the_first_thousand_prompts(
        self, rollouts: pl.DataFrame, demo_rows: list[dict[str, Any]]
    ) -> None:
        keys = ["prompt", "task_id", "family", "level"]
        expected = [tuple(row[key] for key in keys) for row in demo_rows[:1000]]
        assert rollouts.select(keys).unique(maintain_order=True).rows() == expected
        assert rollouts["rollout"].to_list() == list(itertools.chain.from_iterable([range(8)] * 1000))

    def test_their_answers_and_scores_are_those_of_today(
        self, rollouts: pl.DataFrame, demo_rows: list[dict[str, Any]]
    ) -> None:
        rows = {row["task_id"]: row for row in demo_rows}
        for recorded in rollouts.gather_every(7).iter_rows(named=True):
            row = rows[recorded["task_id"]]
            answer = extract_answer(recorded["completion"], like=row["answer"])
            assert answer == recorded["answer_extracted"]
            assert score_answer(row, answer) == pytest.approx(recorded["score"])
            assert recorded["correct"] is (recorded["score"] >= CORRECT_SCORE)

    def test_the_model_solves_some_of_every_family_and_all_of_none(self, rollouts: pl.DataFrame) -> None:
        rates = rollouts.group_by("family").agg(pl.col("correct").mean())["correct"]
        assert rates.is_between(0.01, 0.60).all()

    def test_pass_rates_differ_enough_to_learn_from(self, rollouts: pl.DataFrame) -> None:
        rates = rollouts.group_by("task_id").agg(pl.col("correct").mean())["correct"]
        assert rates.is_between(0.0, 1.0, closed="none").sum() >= 200

    def test_the_file_is_small(self) -> None:
        assert ROLLOUTS.stat().st_size < 1_200_000
