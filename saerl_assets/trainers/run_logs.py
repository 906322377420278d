"""Logs of trainings, whatever trainer wrote them, as a list of prompts with their steps.

Belongs here: the formats of logs, finding a prompt by its text. Does not belong here: comparing with the manifest
(verify).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.verify import Taken

if TYPE_CHECKING:
    from pathlib import Path

ID_FIELDS = ("prompt_id", "saerl_prompt_id")
TEXT_FIELDS = ("prompt", "messages", "input")
"""Where a line says which prompt it is of, most certain first; `extra_info` and `label` are looked into for an id."""

_SHOWN_BAD_LINES = 10
_MAX_BAD_FRACTION = 0.01
_ANCHOR = 24
"""Characters of a text by which it is found inside a longer one."""
_MAX_AFFIXES = 16
_MAX_SEARCH = 10_000_000
"""Places and candidates that are looked at inside longer texts, over a whole log: tens of seconds. A log that follows
needs the first lines only, for what a chat template puts around a prompt is the same everywhere."""


@dataclass
class RunLog:
    """What was read."""

    kind: str
    """saerl, trl, verl or plain."""
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
        return {"saerl": 0, "trl": 1, "verl": 1}.get(self.kind)

    @property
    def may_skip(self) -> bool:
        """TRL writes its completions every `logging_steps`, and then those of the last batch alone."""
        return self.kind == "trl"


class PromptTexts:
    """The texts of a manifest's prompts, to find prompts by what a log shows of them.

    White space counts as one space. Of a chat the last message of the user counts, which a chat template leaves as it
    is; so prompts that differ elsewhere only are one.
    """

    def __init__(self, prompts: Iterable[tuple[str, object]]) -> None:
        self.ids: dict[str, str] = {}
        self.alias: dict[str, str] = {}
        """Prompt id to the id that stands for its text."""
        for prompt_id, prompt in prompts:
            text = canonical(prompt)
            self.alias[prompt_id] = self.ids.setdefault(text, prompt_id)
        self._anchors: dict[int, dict[str, list[str]]] = {}
        for text in self.ids:
            length = min(_ANCHOR, len(text))
            if length:
                self._anchors.setdefault(length, {}).setdefault(text[:length], []).append(text)
        self._affixes: list[tuple[str, str]] = []
        self._known: dict[str, str] = {}
        self._left_to_search = _MAX_SEARCH

    @property
    def gave_up(self) -> bool:
        """There was so much to search that later texts were compared as wholes only."""
        return self._left_to_search <= 0

    def find(self, prompt: object) -> str:
        """The id of a prompt; for one that the manifest does not have, its text in quotes."""
        key = prompt if isinstance(prompt, str) else json.dumps(prompt)
        if key not in self._known:
            if len(self._known) > 1_000_000:
                self._known.clear()
            text = canonical(prompt)
            self._known[key] = self.ids.get(text) or self._find_within(text) or _quoted(text)
        return self._known[key]

    def _find_within(self, text: str) -> str | None:
        """The prompt that a text contains, as a chat template wraps it: the longest, and of those the last."""
        for prefix, suffix in self._affixes:
            if text.startswith(prefix) and text.endswith(suffix):
                found = self.ids.get(text[len(prefix) : len(text) - len(suffix)].strip())
                if found is not None:
                    return found
        best, at = "", -1
        if self.gave_up:
            return None
        for length, anchors in self._anchors.items():
            self._left_to_search -= len(text)
            for start in range(len(text) - length + 1):
                candidates = anchors.get(text[start : start + length], ())
                self._left_to_search -= len(candidates)
                for candidate in candidates:
                    if len(candidate) >= len(best) and _stands_alone(text, start, candidate):
                        best, at = candidate, start
        if at < 0:
            return None
        self._affixes = [(text[:at], text[at + len(best) :]), *self._affixes][:_MAX_AFFIXES]
        return self.ids[best]


def canonical(prompt: object) -> str:
    """What of a prompt is compared: its text, of a chat the last message of the user."""
    if isinstance(prompt, list):
        said = [message for message in prompt if isinstance(message, dict)]
        users = [message for message in said if message.get("role") == "user"] or said
        prompt = users[-1].get("content") if users else ""
    if isinstance(prompt, list):  # parts, as chats with images have them
        prompt = " ".join(str(part.get("text", "")) for part in prompt if isinstance(part, dict))
    return " ".join(unicodedata.normalize("NFC", str(prompt)).split())


def _stands_alone(text: str, start: int, candidate: str) -> bool:
    """It is there, and no word goes on at its ends."""
    end = start + len(candidate)
    if not text.startswith(candidate, start):
        return False
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isalnum() and candidate[0].isalnum()) and not (after.isalnum() and candidate[-1].isalnum())


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
    kind, files = _files_of(path)
    log = RunLog(kind)
    known: list[PromptTexts] = []
    for file in files:
        lines = _parquet_lines(file, log) if file.suffix == ".parquet" else _json_lines(file, log)
        for where, line in lines:
            _take(where, line, log, known, texts)
    if any(each.gave_up for each in known):
        log.notes.append("the log has so many texts that are not the manifest's that not all were searched for prompts")
    _refuse_rubbish(path, log)
    return log


def _files_of(path: Path) -> tuple[str, list[Path]]:
    """Whose log it is, and its files in order."""
    if path.is_file():
        if path.name.startswith("saerl_log"):
            return "saerl", [path]
        return ("trl" if re.fullmatch(r"completions_\d+\.parquet", path.name) else "plain"), [path]
    if (path / "saerl_log.jsonl").is_file():
        return "saerl", [path / "saerl_log.jsonl"]
    for folder in (path, path / "completions"):
        found = sorted(folder.glob("completions_*.parquet"))
        if found:
            return "trl", found
    found = sorted((each for each in path.glob("*.jsonl") if each.stem.isdecimal()), key=lambda each: int(each.stem))
    if found:
        return "verl", found
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
        wanted = {"step", "epoch", "manifest_id", *ID_FIELDS, *TEXT_FIELDS}
        columns = [name for name in file.schema_arrow.names if name in wanted]
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
    prompt_id = _id_in(line)
    if prompt_id is None:
        shown = next((line[name] for name in TEXT_FIELDS if line.get(name)), None)
        if shown is None:
            _bad(log, f"{where}: it names no prompt ({', '.join(('prompt_id', *TEXT_FIELDS))})")
            return
        if not known:
            known.append(texts())
            log.alias = known[0].alias
        prompt_id = known[0].find(shown)
    if isinstance(line.get("manifest_id"), str):
        log.manifest_ids.add(line["manifest_id"])
    whole = int(epoch) if isinstance(epoch, int | float) and epoch == int(epoch) else None
    log.rows.append(Taken(prompt_id, None if step is None else int(step), whole))


def _id_in(line: dict[str, Any]) -> str | None:
    for part in (line, line.get("extra_info"), line.get("label")):
        if isinstance(part, dict):
            for name in ID_FIELDS:
                if isinstance(part.get(name), str):
                    return str(part[name])
    return None


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
