"""Logs in every format, read and held against an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import TRAINERS, ExportRequest, write_export
from saerl_assets.trainers.planned import planned_by_export, verify_run
from saerl_assets.trainers.run_logs import read_log
from saerl_assets.trainers.verify import Verdict

N, SIZE = 24, 4
QUESTIONS = [f"What is {at} + {at * at}?\nShow   your work." for at in range(N)]
MANIFEST = "m" * 64
if TYPE_CHECKING:
    from collections.abc import Callable

Rows = list[tuple[int, str, str]]
"""Step, prompt id, question."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return exported(tmp_path / "export")


def exported(folder: Path, trainer: str = "trl", *, is_chat: bool = False) -> Path:
    place = list(range(N))
    system = [{"role": "system", "content": "Be brief."}] if is_chat else []
    rows = pl.DataFrame(
        {
            "epoch": [0] * N,
            "step": [at // SIZE for at in place],
            "slot": [at % SIZE for at in place],
            "prompt_id": [f"{at:032x}" for at in place],
            "messages": [json.dumps([*system, {"role": "user", "content": text}]) for text in QUESTIONS],
            "is_chat": [is_chat] * N,
            "answer": [str(at) for at in place],
            "topic": ["sums"] * N,
            "cluster_id": [0] * N,
            "difficulty": [0.5] * N,
            "extra": ["{}"] * N,
            "is_padding": [False] * N,
        },
        schema_overrides={"cluster_id": pl.UInt32},
    )
    write_export(trainer, ExportRequest(rows, MANIFEST, "some-v1", "clustered", SIZE, "s" * 64, {}), folder)
    return folder


def planned_rows(n_steps: int = N // SIZE, generations: int = 2) -> Rows:
    return [(at // SIZE, f"{at:032x}", QUESTIONS[at]) for at in range(n_steps * SIZE) for _ in range(generations)]


def swapped(rows: Rows) -> Rows:
    """The questions of two batches, exchanged."""
    other = {1: 2, 2: 1}
    return [(other.get(step, step), prompt_id, question) for step, prompt_id, question in rows]


def as_saerl(path: Path, rows: Rows) -> Path:
    return as_lines(
        path / "saerl_log.jsonl",
        [{"manifest_id": MANIFEST, "step": s, "prompt_id": p, "reward": 0.5, "epoch": 0} for s, p, _ in rows],
    )


def as_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def as_ids(path: Path, rows: Rows) -> Path:
    return as_lines(path / "log.jsonl", [{"prompt_id": p} for _, p, _ in sorted(rows)])


def as_nested_ids(path: Path, rows: Rows) -> Path:
    return as_lines(path / "log.jsonl", [{"extra_info": {"prompt_id": p}, "step": s} for s, p, _ in rows])


def as_texts(path: Path, rows: Rows) -> Path:
    return as_lines(path / "log.jsonl", [{"prompt": f" {q}\n", "step": s} for s, _, q in rows])


def as_messages(path: Path, rows: Rows) -> Path:
    lines = [
        {"prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": q}], "step": s} for s, _, q in rows
    ]
    return as_lines(path / "log.jsonl", lines)


def as_verl(path: Path, rows: Rows) -> Path:
    """As verl 0.9's `_write_generations` has it: decoded with a chat template, by step from 1, by uid."""
    for step in sorted({step for step, _, _ in rows}):
        of_step = sorted((row for row in rows if row[0] == step), key=lambda row: row[1][::-1])
        lines = [
            {
                "input": f"system\nBe brief.\nuser\n{q}\nassistant\n",
                "output": "42",
                "gts": "1",
                "score": 0.0,
                "step": s + 1,
            }
            | {"uid": f"{p}_0_0"}
            for s, p, q in of_step
        ]
        as_lines(path / "rollouts" / f"{step + 1}.jsonl", lines)
    return path / "rollouts"


def as_trl(path: Path, rows: Rows, *, every: int = 1, is_chat: bool = False) -> Path:
    """As TRL 1.16 writes it: one file per logging step, with the prompts of the last generation batch."""
    (path / "out" / "completions").mkdir(parents=True)
    for step in sorted({step for step, _, _ in rows if (step + 1) % every == 0}):
        prompts: list[object] = [q for s, _, q in rows if s == step]
        if is_chat:
            prompts = [[{"role": "user", "content": q}] for q in prompts]
        frame = pl.DataFrame(
            {"step": [step + 1] * len(prompts), "prompt": prompts, "completion": ["42"] * len(prompts)}
            | {"reward_func": [0.5] * len(prompts), "advantage": [0.0] * len(prompts)}
        )
        frame.write_parquet(path / "out" / "completions" / f"completions_{step + 1:05d}.parquet")
    return path / "out"


WRITERS = [as_saerl, as_ids, as_nested_ids, as_texts, as_messages, as_verl, as_trl]


def verified(log: Path, folder: Path) -> Verdict:
    return verify_run(log, planned_by_export(folder))[0]


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_of_a_run_that_followed(write: Callable[[Path, Rows], Path], folder: Path, tmp_path: Path) -> None:
    found = verified(write(tmp_path, planned_rows()), folder)
    assert (found.followed, found.is_complete, found.n_seen) == (True, True, 6), found.lines()
    assert verified(write(tmp_path / "partial", planned_rows(n_steps=4)), folder).n_seen == 4


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_of_a_run_that_did_not(write: Callable[[Path, Rows], Path], folder: Path, tmp_path: Path) -> None:
    found = verified(write(tmp_path, swapped(planned_rows())), folder)
    assert (found.followed, found.first_deviation, found.n_deviations) == (False, 1, 2), found.lines()
    assert "batch 1 is the planned 2" in found.summary


KINDS: dict[Callable[[Path, Rows], Path], str] = {as_saerl: "saerl_log", as_verl: "verl", as_trl: "trl"}


@pytest.mark.parametrize("write", WRITERS)
def test_a_log_is_known_by_its_fields_whatever_its_name(
    write: Callable[[Path, Rows], Path], folder: Path, tmp_path: Path
) -> None:
    log = write(tmp_path, planned_rows())
    texts = planned_by_export(folder).texts
    assert read_log(log, texts).kind == KINDS.get(write, "plain")
    files = [log] if log.is_file() else sorted(each for each in log.rglob("*") if each.is_file())
    renamed = files[0].rename(tmp_path / f"renamed{files[0].suffix}")
    assert read_log(renamed, texts).kind == KINDS.get(write, "plain")


@pytest.mark.parametrize("trainer", sorted(set(TRAINERS) - {"trl_dpo"}))
def test_texts_are_found_in_every_export(trainer: str, tmp_path: Path) -> None:
    folder = exported(tmp_path / "export", trainer)
    assert verified(as_verl(tmp_path, planned_rows()), folder).followed
    assert verified(as_trl(tmp_path, planned_rows(), is_chat=True), folder).followed


def test_a_chat_with_a_system_message_is_found(tmp_path: Path) -> None:
    folder = exported(tmp_path / "export", "verl", is_chat=True)
    assert verified(as_verl(tmp_path, planned_rows()), folder).followed


def test_completions_that_are_written_now_and_then(folder: Path, tmp_path: Path) -> None:
    found = verified(as_trl(tmp_path, planned_rows(), every=3), folder)
    assert found.followed
    assert (found.n_seen, found.is_complete) == (2, False)
    assert any("batches in between" in note for note in found.notes)


def test_another_manifests_log_is_refused_by_its_name(folder: Path, tmp_path: Path) -> None:
    log = as_saerl(tmp_path, planned_rows())
    log.write_text(log.read_text().replace(MANIFEST, "f" * 64))
    found = verified(log, folder)
    assert not found.followed
    assert "of manifest ffffffffffff, and this one is mmmmmmmmmmmm" in found.notes[0]


def test_a_foreign_text_is_shown(folder: Path, tmp_path: Path) -> None:
    rows = planned_rows()
    rows[6:8] = [
        (0, "", "Who wrote the play about a prince that could not decide, and when was it first on stage?")
    ] * 2
    found = verified(as_texts(tmp_path, rows), folder)
    assert (found.first_deviation, found.n_extra) == (0, 1)
    assert found.extra[0].startswith('"Who wrote the play')


# ---------------------------------------------------------------- damage


def test_a_last_line_that_is_cut_off_is_no_harm(folder: Path, tmp_path: Path) -> None:
    log = as_saerl(tmp_path, planned_rows(n_steps=3))
    log.write_text(log.read_text()[:-40])
    found = verified(log, folder)
    assert found.followed
    assert any(f"cut off ({log}:24)" in note for note in found.notes)


def test_a_line_of_garbage_is_named_with_its_number(folder: Path, tmp_path: Path) -> None:
    log = as_saerl(tmp_path, planned_rows())
    lines = log.read_text().splitlines()
    lines[10] = '{"step": 1, "pro' + lines[10]
    log.write_text("\n".join(lines) + "\n")
    found = verified(log, folder)
    assert found.followed, "the other completion of the prompt is there"
    assert f"not read: {log}:11: it is not JSON" in found.notes


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("\x00\x00\x00", "it is not JSON"),
        ("[1, 2]", "it is no JSON object"),
        ('{"step": 1}', "it names no prompt"),
        ('{"step": "one", "prompt_id": "a"}', "its step is 'one'"),
        ('{"step": 1.5, "prompt_id": "a"}', "its step is 1.5"),
    ],
)
def test_a_file_that_is_no_log_is_refused_with_the_line(line: str, what: str, folder: Path, tmp_path: Path) -> None:
    log = as_saerl(tmp_path, planned_rows(n_steps=1))
    log.write_text(log.read_text() + f"{line}\n" * 3)
    with pytest.raises(SaerlError, match=what) as caught:
        verified(log, folder)
    assert caught.value.code == "log_unreadable"
    assert caught.value.where == f"{log}:9"


def test_logs_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "hollow").mkdir()
    for name, code in (
        ("empty.jsonl", "log_empty"),
        ("nowhere", "log_unreadable"),
        ("hollow", "log_unreadable"),
        ("broken.parquet", "log_empty"),
    ):
        with pytest.raises(SaerlError) as caught:
            verified(tmp_path / name, folder)
        assert caught.value.code == code, name
