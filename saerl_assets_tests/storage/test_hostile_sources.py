"""Sources that nobody should write: every row of them is taken or rejected with a reason, or the file is refused.

Rows go all the way that data goes: bytes on disk, `resolve_source`, `read_source`, `take_prompts`, the warehouse.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.prompts import Intake, TokenisedText, check_rejected, take_prompts
from saerl_assets.domain.spec import VersionSpec
from saerl_assets.domain.spec_draft import draft_spec
from saerl_assets.storage.home import Home
from saerl_assets.storage.sources import estimate_rows, read_source, resolve_source
from saerl_assets.storage.warehouse import Warehouse

N_BAD_ROWS = 10_000
ROWS_IN_FILE = {"jsonl": 40, "csv": 20, "parquet": 20}
FILES = {"jsonl": 200, "csv": 60, "parquet": 40}
REFUSED = {"source_broken", "source_empty", "source_type", "unknown_field"}
FIELDS = ("prompt", "answer", "topic", "reply", "split", "level", "better", "worse", "meta")

ALL_MAY_BE_REJECTED = {"source": "path:x", "max_rejected_fraction": 1.0}
SPECS = {
    name: VersionSpec.model_validate({"key": "x-v1", "data": ALL_MAY_BE_REJECTED | data} | more)
    for name, data, more in (
        ("plain", {}, {}),
        (
            "everything",
            {
                "answer": "answer",
                "topic": "topic",
                "strip_prefix": "auto",
                "strip_suffix": "auto",
                "keep": ["meta.a.0"],
            },
            {"labels": {"level": {"column": "level"}}, "split": {"column": "split"}},
        ),
        ("responses", {"response": "reply"}, {"reader": {"scope": "response"}, "split": {"evaluation_fraction": 0.5}}),
        ("chat", {"prompt": "prompt.0.content"}, {"reader": {"template": "chat", "max_tokens": 3}}),
        ("pairs", {"chosen": "better", "rejected": "worse"}, {}),
        ("pairs alone", {"prompt": "better", "chosen": "better", "rejected": "worse"}, {}),
    )
}  # fmt: skip
GOOD: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "How much is 2 and 3?"}],
    "answer": "5",
    "topic": "sums",
    "reply": "It is 5.",
    "split": "train",
    "level": 1,
    "better": [{"role": "user", "content": "2 and 3?"}, {"role": "assistant", "content": "5"}],
    "worse": [{"role": "user", "content": "2 and 3?"}, {"role": "assistant", "content": "6"}],
    "meta": {"a": [1]},
}

NASTY_TEXTS = [
    "", " ", "\x00", "a\x00b", "\ud800", "x\udfffy", "\ufeff", "\u200b", "\u202e", "e\u0301", "\r\n", "\x1b[2J", "\x7f",
    "'; DROP TABLE prompts; --", '"', "../../etc/passwd", "<script>", "{{ 7 * 7 }}", "%s%n", "NaN", "1e999", "test",
    "Human: a\n\nAssistant: b", "x" * 3_000, "\U0001f469\u200d\U0001f4bb", "\u0130\u1e9e",
]  # fmt: skip
NASTY_NUMBERS: list[float] = [10**30, -(10**400), math.nan, math.inf, -math.inf, 1e308, 5e-324, 2**63, -0.0]
TEXTS = st.sampled_from(NASTY_TEXTS) | st.text(st.characters(exclude_categories=()), max_size=6)
SCALARS = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(NASTY_NUMBERS) | TEXTS | st.just("How much is 1?")
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["role", "content", "a", "0", "", "\x00", "\ud800"]), inner, max_size=3)
    ),
    max_leaves=4,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "", "\ud800", None]), "content": SCALARS}
    ),
    max_size=3,
)
VALUES = SCALARS | NESTED | MESSAGES
ROWS = st.dictionaries(
    st.sampled_from([*FIELDS, *FIELDS, "", "prompt.0.content", "a" * 300, "\x00", "\ud800"]), VALUES, max_size=6
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line of JSON lines: mostly an object; sometimes cut, or a value of another kind, or bytes."""
    what = draw(st.integers(0, 9))
    if what == 0:
        return draw(st.binary(min_size=1, max_size=20)).replace(b"\n", b"?") + b"\xff"
    if what == 1:
        return draw(
            st.sampled_from(
                [b"[" * 3_000, b'{"prompt": ' + b"9" * 5_000 + b"}", b'{"prompt": "\xff"}', b"null", b"{}", b"NaN",
                 b'{"prompt": "a", "prompt": 1}', b'{"a":' * 400 + b"1" + b"}" * 400, b'"prompt"', b'{"prompt": "a"} x',
                 b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}"]
            )
        )  # fmt: skip
    row = {"prompt": draw(VALUES), **draw(ROWS)}
    text = json.dumps(row, ensure_ascii=draw(st.integers(0, 3)) > 0).encode(errors="surrogatepass")
    return text[: draw(st.integers(1, len(text)))] if what == 2 else text


class Tokeniser:
    """A token for each word; it can encode what it is given, as any tokenizer must."""

    def __call__(
        self, prompts: Sequence[list[dict[str, str]] | str], responses: Sequence[str | None]
    ) -> list[TokenisedText]:
        return [self._one(*pair) for pair in zip(prompts, responses, strict=True)]

    def _one(self, prompt: list[dict[str, str]] | str, response: str | None) -> TokenisedText:
        text = prompt if isinstance(prompt, str) else " ".join(message["content"] for message in prompt)
        ids = [len(word.encode()) for word in text.replace("\u200b", "").split()]
        return TokenisedText(
            ids + [len(word.encode()) for word in (response or "").split()], len(ids) if response else 0
        )


class Taker:
    """Takes files in, and counts what becomes of them and of their rows."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.file = folder / f"rows.{kind}"
        self.warehouse = Warehouse(Home(folder / "home").create())
        self.n_files = 0
        self.outcomes: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """Everything that is done with a source before a model reads it; fails where a row is lost."""
        self.n_files += 1
        spec = SPECS[name]
        try:
            source = resolve_source(f"path:{self.file}", self.file.parent)
            estimate_rows(source)
            rows = list(read_source(source))
        except SaerlError as error:
            self._refused(error)
            return
        assert [row.position for row in rows] == list(range(len(rows)))
        try:
            intake = take_prompts(iter(rows), spec, Tokeniser(), file=self.file.name)
        except SaerlError as error:
            self._refused(error)
            return
        self._accounted(intake, len(rows))
        if self.n_files % 25 == 1:
            self._stored(intake)
        try:
            check_rejected(intake, spec)
            draft_spec(iter(rows), source="path:x", key="x-v1")
        except SaerlError as error:
            self._told(error, {"no_prompts", "no_prompt_column"})

    def _told(self, error: SaerlError, codes: set[str]) -> None:
        assert error.code in codes, error
        assert error.problem
        assert error.remedy
        str(error).encode()

    def _refused(self, error: SaerlError) -> None:
        self._told(error, REFUSED)
        self.outcomes[f"file {error.code}"] += 1

    def _accounted(self, intake: Intake, n_rows: int) -> None:
        rejected = intake.rejected
        assert intake.counts["rows"] == n_rows
        assert int(intake.prompts["n_rows"].sum()) + rejected.height == n_rows
        assert rejected["position"].is_unique().all()
        assert rejected.select((pl.col("reason").str.len_chars() > 0).all()).item()
        assert rejected.select(pl.col("reason_code").str.contains(r"^[a-z]+(_[a-z0-9]+)+$").all()).item()
        for document in intake.prompts["extra"].to_list():
            json.loads(document)
        self.outcomes["taken"] += n_rows - rejected.height
        self.outcomes.update(rejected["reason_code"].to_list())

    def _stored(self, intake: Intake) -> None:
        kept = self.warehouse.store("prompts", intake.prompts, "x-v1")
        self.warehouse.store("rejected_rows", intake.rejected, "x-v1")
        assert kept == intake.prompts.height == self.warehouse.rows("prompts", dataset_version="x-v1").height

    @property
    def n_rows(self) -> int:
        """Rows that were taken or rejected one by one."""
        return sum(number for what, number in self.outcomes.items() if not what.startswith("file "))


@pytest.fixture
def taker(request: pytest.FixtureRequest, tmp_path: Path) -> Taker:
    return Taker(tmp_path, request.param)


def generated(kind: str) -> settings:
    """The same examples in every run, none of them made smaller when it fails."""
    return settings(
        max_examples=FILES[kind],
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("taker", ["jsonl"], indirect=True)
def test_bad_json_lines_are_taken_or_rejected_one_by_one(taker: Taker) -> None:
    good = json.dumps(GOOD).encode()
    n = ROWS_IN_FILE["jsonl"]

    @generated("jsonl")
    @given(bad=st.lists(lines(), min_size=n, max_size=n), name=st.sampled_from(sorted(SPECS)))
    def answered(bad: list[bytes], name: str) -> None:
        taker.file.write_bytes(b"\n".join([good, *bad]) + b"\n")
        before = taker.n_rows
        taker.take(name)
        assert taker.n_rows - before == n + 1, "with one good row no file of lines is refused as a whole"

    answered()
    assert taker.n_rows >= 8_000


CELLS = TEXTS | st.sampled_from(["1", "007", "1e5", "true", "null", '"', ",", "\n", "a,b", '""', "[1]", "", "nan"])


@pytest.mark.parametrize("taker", ["csv"], indirect=True)
def test_bad_csv_is_taken_or_rejected_or_refused(taker: Taker) -> None:
    n = ROWS_IN_FILE["csv"]
    header = ["prompt", "answer", "level", "reply"]
    row = st.lists(CELLS, min_size=3, max_size=5)

    @generated("csv")
    @given(
        rows=st.lists(row, min_size=n, max_size=n),
        names=st.just(header) | st.lists(CELLS, min_size=4, max_size=4),
        quoted=st.sampled_from([True, True, True, False]),
    )
    def answered(rows: list[list[str]], names: list[str], *, quoted: bool) -> None:
        def cell(text: str) -> str:
            return '"' + text.replace('"', '""') + '"' if quoted else text

        text = "\n".join(",".join(map(cell, cells)) for cells in [names, *rows])
        taker.file.write_bytes(text.encode(errors="surrogatepass"))
        taker.take("plain")

    answered()
    assert taker.n_rows >= 300


@pytest.mark.parametrize("taker", ["parquet"], indirect=True)
def test_bad_parquet_is_taken_or_rejected_or_refused(taker: Taker) -> None:
    n = ROWS_IN_FILE["parquet"]
    whole = pa.table(
        {"prompt": [f"prompt {place}" for place in range(n)], "meta": [{"a": [place]} for place in range(n)]}
    )
    pq.write_table(whole, taker.file)
    content = taker.file.read_bytes()
    places = st.integers(4, len(content) - 1)

    @generated("parquet")
    @given(changes=st.lists(st.tuples(places, st.integers(0, 255)), max_size=4), cut=st.none() | places)
    def answered(changes: list[tuple[int, int]], cut: int | None) -> None:
        changed = bytearray(content)
        for place, value in changes:
            changed[place] = value
        taker.file.write_bytes(changed[:cut])
        taker.take("plain")

    answered()
    assert taker.outcomes["file source_broken"] > 5
    assert taker.outcomes["taken"] > 20


def column(kind: str) -> pa.Array:
    """Three values of a type that Parquet knows and few rows should have."""
    moment = dt.datetime(2020, 1, 1)  # noqa: DTZ001
    made: dict[str, Callable[[], pa.Array]] = {
        "bytes": lambda: pa.array([b"\xff\x00", b"a", None]),
        "decimal": lambda: pa.array([decimal.Decimal("1.5")] * 3),
        "decimal of 256 bits": lambda: pa.array([decimal.Decimal(10) ** 60] * 3, pa.decimal256(70, 2)),
        "time zone": lambda: pa.array([moment] * 3, pa.timestamp("ns", "Europe/Berlin")),
        "year five million": lambda: pa.array([2**31 - 1] * 3, pa.date32()),
        "duration": lambda: pa.array([2**62] * 3, pa.duration("s")),
        "time": lambda: pa.array([1] * 3, pa.time64("ns")),
        "dictionary": lambda: pa.array(["a", "b", "a"]).dictionary_encode(),
        "map": lambda: pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "null": lambda: pa.nulls(3),
        "unsigned": lambda: pa.array([2**64 - 1] * 3, pa.uint64()),
        "infinite": lambda: pa.array([math.nan, math.inf, -math.inf]),
        "nested": lambda: pa.array([{"a": {"b": [{"c": None}]}}] * 3),
        "fixed list": lambda: pa.array([[1, 2]] * 3, pa.list_(pa.int64(), 2)),
        "fixed bytes": lambda: pa.array([b"ab"] * 3, pa.binary(2)),
        "not utf-8": lambda: pa.StringArray.from_buffers(
            3, pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2, 3))), pa.py_buffer(b"a\xffb")
        ),
    }
    return made[kind]()


KINDS = [
    "bytes", "decimal", "decimal of 256 bits", "time zone", "year five million", "duration", "time", "dictionary",
    "map", "null", "unsigned", "infinite", "nested", "fixed list", "fixed bytes", "not utf-8",
]  # fmt: skip


@pytest.mark.parametrize("taker", ["parquet"], indirect=True)
@pytest.mark.parametrize("field", ["prompt", "answer", "level", "meta"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_parquet_is_taken_or_rejected_or_refused(taker: Taker, kind: str, field: str) -> None:
    columns = {
        name: pa.array(["one", "two", "three"]) for name in ("prompt", "answer", "topic", "split", "level", "meta")
    }
    pq.write_table(pa.table(columns | {field: column(kind)}), taker.file)
    taker.take("plain")
    taker.take("everything")
    assert taker.n_rows in {0, 3, 6}
    assert taker.n_rows or set(taker.outcomes) == {"file source_broken"} or field == "meta"


def test_there_are_as_many_rows_as_are_promised() -> None:
    assert sum(ROWS_IN_FILE[kind] * FILES[kind] for kind in FILES) >= N_BAD_ROWS
