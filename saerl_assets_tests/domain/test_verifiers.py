from __future__ import annotations

import json
import math
import sys
import threading
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.gym import generate_rows, parse_tasks
from saerl_assets.domain.verifiers import (
    asked,
    exact,
    final_answer,
    final_part,
    last_number,
    load_verifier,
    needs_answer,
    verifier_digest,
    verifier_fields,
)


@pytest.mark.parametrize(
    ("completion", "part"),
    [
        ("  42\n", "42"),
        (r"so \boxed{1} and then \boxed{ \frac{1}{2} }.", r"\frac{1}{2}"),
        (r"\boxed{a \{ b} c", r"a \{ b"),
        (r"\boxed{never closed, but the answer is 3", "3"),
        (r"\boxed{\boxed{7}}", r"\boxed{7}"),
        ("2 + 2 = 4\n#### 4\n", "4"),
        ("#### 4\nfor real #### 5", "5"),
        ("The answer is 12 apples.\nGood?", "12 apples."),
        ("**Answer:** yes\n", "yes"),
        ("Answer:\n17", "17"),
        ("", ""),
    ],
)
def test_the_final_part(completion: str, part: str) -> None:
    assert final_part(completion) == part


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("Paris", "Paris", 1.0),
        ("The answer is Paris.", "Paris", 1.0),
        ("The answer is a.m.", "a.m.", 1.0),
        ("paris", "Paris", 0.0),
        ("It is Paris", "Paris", 0.0),
        ("re\u0301", "r\u00e9", 1.0),
        (r"\boxed{B}", "B", 1.0),
        ("", "", 1.0),
        ("", "x", 0.0),
    ],
)
def test_exact(completion: str, answer: str, score: float) -> None:
    assert exact(completion, answer, {}) == score


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("so we get 1,234", "1234", 1.0),
        ("0.50", "1/2", 1.0),
        (r"\boxed{\dfrac{2}{4}}", "0.5", 1.0),
        ("5-3 = 2", "2", 1.0),
        ("it is \u22122", "-2", 1.0),
        ("it is 2", "-2", 0.0),
        ("1, 2, 3", "3", 1.0),
        ("12 apples", "#### 12", 1.0),
        ("1e3", "1000", 1.0),
        ("4/0", "4", 0.0),
        ("no idea", "4", 0.0),
        ("", "0", 0.0),
        ("The answer is YES.", "yes", 1.0),
        ("no", "yes", 0.0),
        ("9" * 5000, "9", 0.0),
        ("The answer is 5. It took 3 steps.\n\nAnswer: 7", "7", 1.0),
    ],
)
def test_final_answer(completion: str, answer: str, score: float) -> None:
    assert final_answer(completion, answer, {}) == score


@given(st.fractions(max_denominator=10_000), st.text(alphabet="abc xyz=+", max_size=20))
def test_any_number_is_found_at_the_end(number: Fraction, before: str) -> None:
    assert last_number(f"{before} {number}") == number
    assert final_answer(f"{before} \\boxed{{{number}}} 1 2 3", str(number), {}) == 1.0
    assert final_answer(f"{before} {number + 1}", str(number), {}) == 0.0


@given(st.integers(-(10**12), 10**12))
def test_thousands_and_decimals_are_the_same_number(number: int) -> None:
    assert last_number(f"{number:,}") == last_number(f"{number}.000") == number


@settings(max_examples=300)
@given(st.text(max_size=200), st.text(max_size=30))
def test_every_text_gets_a_score_and_the_reference_itself_gets_one(completion: str, answer: str) -> None:
    for verify in (exact, final_answer):
        assert verify(completion, answer, {}) in {0.0, 1.0}
    assert exact(f"\\boxed{{{answer}}}", answer, {}) == 1.0 or not _balanced(answer)
    assert final_answer(answer, answer, {}) == 1.0 or last_number(final_part(answer)) is None


def _balanced(text: str) -> bool:
    return not any(mark in text for mark in "{}\\")


def test_boxes_that_never_close_take_one_pass() -> None:
    assert final_part("\\boxed{" * 200_000 + " answer is 4") == "4"


@pytest.mark.parametrize("name", ["exact", "final_answer", "math"])
def test_without_a_reference_answer_these_say_so(name: str) -> None:
    assert needs_answer(name)
    with pytest.raises(SaerlError) as raised:
        load_verifier(name)("4", None, {})
    assert raised.value.code == "answer_missing"


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        (r"Hence $x = \boxed{\frac{1}{2}}$.", "0.5", 1.0),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", 1.0),
        (r"The answer is $\{2, 1\}$", r"\{1, 2\}", 1.0),
        ("the answer is 7", "$7$", 1.0),
        (r"\boxed{3}", "4", 0.0),
        ("", "4", 0.0),
    ],
)
def test_math(completion: str, answer: str, score: float) -> None:
    assert load_verifier("math")(completion, answer, {}) == score


def test_math_also_in_a_thread() -> None:
    scores: list[float] = []
    verify = load_verifier("math")
    thread = threading.Thread(target=lambda: scores.append(verify(r"\boxed{0.25}", r"\frac14", {})))
    thread.start()
    thread.join()
    assert scores == [1.0]


def test_math_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(SaerlError, match=r"saerl_assets\[math\]") as raised:
        load_verifier("math")
    assert raised.value.code == "math_missing"


@pytest.fixture
def gym_row() -> dict[str, Any]:
    mix = {
        "seed": 3,
        "n_rows": 1,
        "families": [{"name": "word_sorting", "settings": [{"min_words": 3, "max_words": 3}]}],
    }
    (row,) = generate_rows(parse_tasks(mix))
    return dict(row)


def test_reasoning_gyms_own_scorer(gym_row: dict[str, Any]) -> None:
    verify, answer = load_verifier("reasoning_gym"), str(gym_row["answer"])
    row = {"family": "word_sorting", "metadata": gym_row["metadata"], "level": 0}
    fields = verifier_fields(json.dumps(row), prompt=gym_row["prompt"])
    assert verify(f"Answer: {answer}", answer, fields) == 1.0
    assert verify("none of it", answer, fields) < 0.5
    of_topic = verifier_fields({"metadata": gym_row["metadata"]}, prompt=gym_row["prompt"], topic="word_sorting")
    assert verify(answer, answer, of_topic) == 1.0
    of_metadata = {"metadata": json.loads(gym_row["metadata"]) | {"source_dataset": "word_sorting"}}
    assert verify(answer, answer, of_metadata) == 1.0
    assert not needs_answer("reasoning_gym")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "verifier_failed"),
        ({"metadata": "{"}, "verifier_failed"),
        ({"metadata": "[1]", "family": "gcd"}, "verifier_failed"),
        ({"metadata": "{}"}, "family_unknown"),
        ({"metadata": "{}", "family": "gcdd"}, "family_unknown"),
    ],
)
def test_rows_that_reasoning_gym_cannot_score(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(SaerlError) as raised:
        load_verifier("reasoning_gym")("4", "4", fields)
    assert raised.value.code == code


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("own_rewards")
    monkeypatch.setitem(sys.modules, "own_rewards", module)
    return module


def test_a_function_of_ones_own(own: ModuleType) -> None:
    own.length = lambda completion, answer, fields: len(completion) / fields["longest"] + (answer is None)  # type: ignore[attr-defined]
    verify = load_verifier("own_rewards:length")
    assert verify("ab", "x", {"longest": 4}) == 0.5
    assert not needs_answer("own_rewards:length")
    with pytest.raises(SaerlError, match="no number from 0 to 1") as raised:
        verify("ab", None, {"longest": 4})
    assert raised.value.code == "verifier_failed"
    with pytest.raises(SaerlError, match="KeyError") as raised:
        verify("ab", None, {})
    assert raised.value.code == "verifier_failed"


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.1, None, "1", [1.0], 10**400])
def test_scores_that_are_none(own: ModuleType, score: object) -> None:
    own.score = lambda _completion, _answer, _fields: score  # type: ignore[attr-defined]
    with pytest.raises(SaerlError) as raised:
        load_verifier("own_rewards:score")("4", "4", {})
    assert raised.value.code == "verifier_failed"


@pytest.mark.parametrize("score", [True, 1, 0.0, 0.25, Fraction(1, 4)])
def test_scores_of_other_types_of_number(own: ModuleType, score: float) -> None:
    own.score = lambda _completion, _answer, _fields: score  # type: ignore[attr-defined]
    given_back = load_verifier("own_rewards:score")("4", "4", {})
    assert isinstance(given_back, float)
    assert given_back == score


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("exactly", "unknown_verifier"),
        ("", "unknown_verifier"),
        ("own_rewards", "unknown_verifier"),
        ("own_rewards:", "unknown_verifier"),
        ("own_rewards:a b", "unknown_verifier"),
        ("own_rewards:missing", "unknown_verifier"),
        ("no_such_module_at_all:score", "unknown_verifier"),
        ("../evil:score", "unknown_verifier"),
        ("own_rewards:constant", "verifier_refused"),
        ("own_rewards:of_two", "verifier_refused"),
        ("timeit:timeit", "verifier_refused"),
        ("builtins:exec", "verifier_refused"),
        ("os.path:join", "verifier_refused"),
    ],
)
def test_names_that_are_no_verifier(own: ModuleType, name: str, code: str) -> None:
    own.constant = 1.0  # type: ignore[attr-defined]
    own.of_two = lambda _completion, _answer: 1.0  # type: ignore[attr-defined]
    with pytest.raises(SaerlError) as raised:
        load_verifier(name)
    assert raised.value.code == code


def test_what_a_verifier_is_given_of_a_row() -> None:
    messages = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": "what?"}])
    assert asked(messages) == "what?"
    assert asked([{"role": "assistant", "content": "so"}]) == "so"
    assert verifier_fields('{"level": 2}', prompt="what?", topic="t") == {"prompt": "what?", "topic": "t", "level": 2}
    assert verifier_fields({"topic": "own"}, prompt="", topic="t") == {"prompt": "", "topic": "own"}
    assert "topic" not in verifier_fields({}, prompt="")


def test_a_verifier_that_was_edited_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "edited_verifier.py"
    file.write_text("def reward(completion, answer, fields):\n    return 1.0\n")
    before = verifier_digest("edited_verifier:reward")
    assert verifier_digest("edited_verifier:reward") == before
    file.write_text("def reward(completion, answer, fields):\n    return 0.0\n")
    assert verifier_digest("edited_verifier:reward") != before
    assert verifier_digest("exact") == "exact"
    with pytest.raises(SaerlError, match="cannot be imported"):
        verifier_digest("no_such_module:reward")
