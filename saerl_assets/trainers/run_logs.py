"""Logs of trainings, whatever trainer wrote them, as a list of prompts with their steps.

Belongs here: finding the files of a log and reading them. Does not belong here: whose format a row has and which prompt
it is of (domain), comparing with the manifest (verify).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.log_formats import FIRST_STEP, ID_FIELDS, ID_PLACES, LogFormat, log_format, named_prompt
from saerl_assets.domain.prompt_texts import PromptTexts, asked_text
from saerl_assets.trainers.verify import Taken

if TYPE_CHECKING:
    from pathlib import Path

TEXT_FIELDS = ("prompt", "messages", "input")
"""Where a line that names no id says which prompt it is of, most certain first."""

_SHOWN_BAD_LINES = 10
_MAX_BAD_FRACTION = 0.01


@dataclass
class RunLog:
    """What was read."""

    kind: LogFormat = "plain"
    """Whose format its first line has."""
    rows: list[Taken] = field(default_factory=list)
    alias: dict[str, str] = field(default_factory=dict)
    """Where prompts were found by their text: prompt id to the id that stands for all prompts of that text."""
    manifest_ids: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    n_lines: int = 0
    bad_lines: list[str] = field(default_factory=list)
    """`file:line: what`, the first ones."""
    n_bad: int = 0

    @property
    def first_step(self) -> int | None:
        """The number that such a log gives the first batch; None where it is not known."""
        return FIRST_STEP.get(self.kind)

    @property
    def may_skip(self) -> bool:
        """TRL writes its completions every `logging_steps`, and then those of the last batch alone."""
        return self.kind == "trl"


def _quoted(text: str) -> str:
    shown = text if len(text) <= 60 else f"{text[:60]}... {hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return f'"{shown}"'


def read_log(path: Path, texts: Callable[[], PromptTexts]) -> RunLog:
    """Reads a log.

    A file of JSON lines (saerl's own, or any with `prompt_id` or `prompt` and perhaps `step`), a Parquet file or TRL's
    folder of completions, or verl's folder of rollouts. Lines that cannot be read are named; the last one may be cut
    off.

    Args:
        path: File or folder.
        texts: Gives the manifest's texts, should the log name prompts by text.

    Raises:
        SaerlError: `log_unreadable` with file and line, or `log_empty`.
    """
    log = RunLog()
    known: list[PromptTexts] = []
    for file in _files_of(path):
        lines = _parquet_lines(file, log) if file.suffix == ".parquet" else _json_lines(file, log)
        for where, line in lines:
            _take(where, line, log, known, texts)
    if any(each.gave_up for each in known):
        log.notes.append("the log has so many texts that are not the manifest's that not all were searched for prompts")
    _refuse_rubbish(path, log)
    return log


def _files_of(path: Path) -> list[Path]:
    """The files of a log in order."""
    if path.is_file():
        return [path]
    if (path / "saerl_log.jsonl").is_file():
        return [path / "saerl_log.jsonl"]
    for folder in (path, path / "completions"):
        found = sorted(folder.glob("completions_*.parquet"))
        if found:
            return found
    found = sorted((each for each in path.glob("*.jsonl") if each.stem.isdecimal()), key=lambda each: int(each.stem))
    if found:
        return found
    remedy = (
        "Give saerl_log.jsonl, JSON lines with prompt_id or prompt, TRL's folder of completions_*.parquet, or verl's "
        "trainer.rollout_data_dir."
    )
    problem = "There is no log in it." if path.exists() else "There is no such file or folder."
    raise SaerlError("log_unreadable", problem, where=str(path), remedy=remedy)


def _json_lines(path: Path, log: RunLog) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.strip():
                    continue
                log.n_lines += 1
                try:
                    line = json.loads(raw)
                except ValueError:
                    if raw.endswith(b"\n"):
                        _bad(log, f"{path}:{number}: it is not JSON")
                    else:
                        log.notes.append(f"the last line is cut off ({path}:{number})")
                        log.n_lines -= 1
                    continue
                if isinstance(line, dict):
                    log.kind = log.kind if log.rows else log_format(line)
                    yield f"{path}:{number}", line
                else:
                    _bad(log, f"{path}:{number}: it is no JSON object")
    except OSError as error:
        remedy = "Give a log that you may read."
        raise SaerlError("log_unreadable", f"It cannot be read: {error}.", where=str(path), remedy=remedy) from error


def _parquet_lines(path: Path, log: RunLog) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        wanted = {"step", "epoch", "manifest_id", *ID_FIELDS, *ID_PLACES, *TEXT_FIELDS}
        columns = [name for name in file.schema_arrow.names if name in wanted]
        log.kind = log.kind if log.rows else log_format(file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(batch_size=10_000, columns=columns):
            for line in batch.to_pylist():
                number += 1
                log.n_lines += 1
                yield f"{path}:{number}", line
    except (OSError, pa.ArrowException) as error:
        _bad(log, f"{path}: it is no whole Parquet file ({str(error).splitlines()[0]})")
        log.n_lines += 1


def _take(
    where: str, line: dict[str, Any], log: RunLog, known: list[PromptTexts], texts: Callable[[], PromptTexts]
) -> None:
    """Adds what one line says."""
    step, epoch = line.get("step"), line.get("epoch")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or step != int(step)):
        _bad(log, f"{where}: its step is {step!r}")
        return
    prompt_id = named_prompt(line)
    if prompt_id is None:
        shown = next((line[name] for name in TEXT_FIELDS if line.get(name)), None)
        if shown is None:
            _bad(log, f"{where}: it names no prompt ({', '.join(('prompt_id', *TEXT_FIELDS))})")
            return
        if not known:
            known.append(texts())
            log.alias = known[0].alias
        found = known[0].find(shown, anywhere=True)
        prompt_id = log.alias[found[0]] if found else _quoted(asked_text(shown))
    if isinstance(line.get("manifest_id"), str):
        log.manifest_ids.add(line["manifest_id"])
    whole = int(epoch) if isinstance(epoch, int | float) and epoch == int(epoch) else None
    log.rows.append(Taken(prompt_id, None if step is None else int(step), whole))


def _bad(log: RunLog, what: str) -> None:
    log.n_bad += 1
    if len(log.bad_lines) < _SHOWN_BAD_LINES:
        log.bad_lines.append(what)


def _refuse_rubbish(path: Path, log: RunLog) -> None:
    remedy = "Give the log of a training, JSON lines with prompt_id or prompt; see saerl verify --help."
    if log.n_bad > max(1, _MAX_BAD_FRACTION * log.n_lines):
        place, _, what = log.bad_lines[0].rpartition(": ")
        problem = f"{log.n_bad:,} of {log.n_lines:,} lines cannot be read; the first: {what}."
        raise SaerlError("log_unreadable", problem, where=place, remedy=remedy)
    if not log.rows:
        raise SaerlError("log_empty", "The log has no line yet.", where=str(path), remedy=remedy)
