"""Specs that nobody should write: answered in words, with the place and the remedy, or read as what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import (
    KEY_PATTERN,
    MAX_KEY_CHARACTERS,
    VersionSpec,
    canonical_json,
    from_canonical,
    parse_spec,
    spec_digest,
)
from saerl_assets.domain.spec_text import spec_toml

N_BAD_SPECS = 500

HOSTILE_KEYS = [
    "../up-v1", "/etc/up-v1", "a/b-v1", "a\\b-v1", "a.b-v1", "..-v1", "a-v1/..", "a-v1\n", "a-v1 ", " a-v1", "a\tb-v1",
    "it's-v1", 'a"-v1', "a;DROP TABLE versions;---v1", "a-v1--", "a-v0", "a-v01", "a-v", "a-v1.0", "A-v1", "ä-v1",
    "a-v\u0661", "\uff41-v1", "a\u200b-v1", "a\u2010v1", "\u202ea-v1", "a%2f-v1", "$(id)-v1", "~-v1", "-v1", "",
    "a" * MAX_KEY_CHARACTERS + "-v1", "a-v" + "1" * 5_000,
]  # fmt: skip
LITERALS = [
    "nan", "inf", "-inf", "1e999", "-0.0", "9223372036854775808", "0x" + "f" * 40, "9" * 5_000, "true", "2020-01-01",
    "07:32:00", "2020-01-01T00:00:00Z", "[]", "[[]]", "{}", "{a = 1}", "[1, 'a', true]", '""', '"\\u0000"', '"auto"',
    "-1", "0", "1e-320", "[" * 60 + "]" * 60, "[" * 5_000 + "]" * 5_000, "{a=" * 5_000 + "1" + "}" * 5_000,
    "'''\n\n'''", '"../../x"', '"path:\\u0000"', '"hf:"', '"pypi:../x==1"', "99999999999", "[0, 0]", '["a", "a"]',
]  # fmt: skip
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
).map(lambda value: json.dumps(value, ensure_ascii=False).replace("NaN", "nan").replace("Infinity", "inf"))


def base() -> VersionSpec:
    """A spec with something in every section."""
    return VersionSpec.model_validate(
        {
            "key": "base-v1",
            "parent": "before-v1",
            "data": {"source": "path:x.jsonl", "chosen": "better", "rejected": "worse"},
            "labels": {"difficulty": {"column": "level"}, "correct": {"column": "ok", "source": "path:labels.jsonl"}},
            "evidence": {"sentence_model": "path:encoder"},
            "hygiene": {"evaluation": [{"source": "path:test.jsonl"}]},
            "batches": {"feedback": {}},
        }
    )


LINES = spec_toml(base()).splitlines()
SETTINGS = [place for place, line in enumerate(LINES) if " = " in line]


@st.composite
def bad_specs(draw: st.DrawFn) -> str:
    """A spec's text with wrong values, unknown keys, lines missing, twice or in other places, or cut somewhere."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.sampled_from(SETTINGS)) % len(lines)
        name = lines[place].partition(" = ")[0] or "empty"
        literal = draw(st.sampled_from(LITERALS) | JUNK)
        what = draw(st.sampled_from(["value", "value", "value", "key", "unknown", "gone", "twice", "table", "junk"]))
        if what == "value":
            lines[place] = f"{name} = {literal}"
        elif what == "key":
            lines[0] = f"key = {json.dumps(draw(st.sampled_from(HOSTILE_KEYS)), ensure_ascii=False)}"
        elif what == "unknown":
            unknown = draw(st.text(max_size=8) | st.sampled_from(["batch_siz", "a.b.c", "x" * 2_000, "__class__"]))
            lines.insert(place, f"{json.dumps(unknown, ensure_ascii=False)} = {literal}")
        elif what == "gone":
            del lines[place]
        elif what == "twice":
            lines.insert(place, lines[place])
        elif what == "table":
            lines.insert(place, f"[{draw(st.sampled_from(['data', 'labels.x', 'labels', 'a.b', '[hygiene]', '']))}]")
        else:
            lines.insert(place, draw(st.text(max_size=10)))
    text = "\n".join(lines)
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 0 else text


def told(error: SaerlError) -> None:
    """Whether the answer says what is wrong, where, and what to do, on a line that can be read."""
    assert error.code in {"spec_syntax", "spec_invalid"}
    assert error.where.startswith("x.toml")
    assert error.problem
    assert error.remedy
    assert len(str(error)) < 2_000


def test_bad_specs_are_answered_in_words_or_are_none() -> None:
    outcomes: dict[str, int] = {}

    @settings(
        max_examples=N_BAD_SPECS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(text=bad_specs())
    def answered(text: str) -> None:
        try:
            spec = parse_spec(text, "x.toml")
        except SaerlError as error:
            outcomes[error.code] = outcomes.get(error.code, 0) + 1
            told(error)
            return
        outcomes["read"] = outcomes.get("read", 0) + 1
        assert KEY_PATTERN.fullmatch(spec.key)
        assert from_canonical(canonical_json(spec)) == spec
        assert spec_digest(parse_spec(spec_toml(spec), "again.toml")) == spec_digest(spec)

    answered()
    assert sum(outcomes.values()) >= N_BAD_SPECS
    assert outcomes["spec_syntax"] > 50
    assert outcomes["spec_invalid"] > 100
    assert outcomes["read"] > 10, "some changes make a good spec, and it means the same after it was kept"


@pytest.mark.parametrize("key", HOSTILE_KEYS)
@pytest.mark.parametrize("field", ["key", "parent"])
def test_a_key_that_could_be_a_path_or_a_statement_is_none(field: str, key: str) -> None:
    document: dict[str, Any] = {"key": "base-v1", "data": {"source": "path:x"}, field: key}
    text = "\n".join(f"{name} = {json.dumps(document[name])}" for name in ("key", "parent") if name in document)
    with pytest.raises(SaerlError, match="is not a version key") as caught:
        parse_spec(f'{text}\n[data]\nsource = "path:x"\n', "x.toml")
    assert caught.value.code == "spec_invalid"
    assert len(str(caught.value)) < 600


def test_the_longest_key_is_one() -> None:
    key = "a" * (MAX_KEY_CHARACTERS - 3) + "-v1"
    assert parse_spec(f'key = "{key}"\n[data]\nsource = "path:x"\n', "x.toml").key == key


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "it's", 'a"b', "A", "a;b", "ä", "", "a" * 64, "a.b", "1a"])
def test_a_label_name_that_could_be_a_path_or_a_statement_is_none(name: str) -> None:
    with pytest.raises(SaerlError, match="is not a label name"):
        parse_spec(f'key = "a-v1"\n[data]\nsource = "path:x"\n[labels.{json.dumps(name)}]\ncolumn = "c"\n', "x.toml")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("seed = 99999999999999999999", "x.toml:2: 'seed' holds a number of more than 64 bits"),
        ("sae.learning_rate = inf", "x.toml:2: 'sae.learning_rate' holds inf, which is no number"),
        ("quality.threshold = nan", "x.toml:2: 'quality.threshold' holds nan, which is no number"),
        ('reader.model = "path:a\\u0000b"', "x.toml:2: 'reader.model' holds the character NUL"),
        ('data.keep = ["a", "b\\u0000"]', "x.toml:2: 'data.keep' holds the character NUL"),
        (f"seed = {'[' * 5_000}", "nested too deeply"),
    ],
)
def test_values_that_nothing_could_keep_are_refused_with_their_place(setting: str, says: str) -> None:
    with pytest.raises(SaerlError) as caught:
        parse_spec(f'key = "a-v1"\n{setting}\ndata.source = "path:x"\n', "x.toml")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('verifier = "exact"\n', "needs data.answer"),
        ('verifier = "rm -rf"\n', "this is no verifier"),
        ('verifier = "reasoning_gym"\ncorrect_label = "difficulty"\n', "are both 'difficulty'"),
        ('verifier = "reasoning_gym"\ncorrect_label = "Correct!"\n', "is not a label name"),
        ('verifier = "a:b"\n[labels.correct]\ncolumn = "c"\n', "[labels.correct] reads from the data; rename one"),
        ("", "outcomes.verifier' is missing"),
    ],
)
def test_outcomes_that_contradict_the_rest_are_refused(more: str, says: str) -> None:
    text = f'key = "a-v1"\n[data]\nsource = "path:a.jsonl"\n[outcomes]\npolicy = "path:policy"\n{more}'
    with pytest.raises(SaerlError) as raised:
        parse_spec(text, "a.toml")
    assert raised.value.code == "spec_invalid"
    assert says in str(raised.value)


def test_outcomes_are_off_unless_they_are_asked_for() -> None:
    text = 'key = "a-v1"\n[data]\nsource = "path:a.jsonl"\n'
    assert parse_spec(text, "a.toml").outcomes is None
    outcomes = parse_spec(text + '[outcomes]\npolicy = "path:p"\nverifier = "reasoning_gym"\n', "a.toml").outcomes
    assert outcomes is not None
    assert outcomes.labels() == ("correct", "difficulty")
