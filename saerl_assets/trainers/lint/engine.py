"""`saerl lint`: reads a configuration, knows whose it is, and names what in it breaks the order.

Belongs here: which reader takes a file, which trainer a configuration is for, the report. Does not belong
here: rules.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.lint import ms_swift, nemo_rl, openrlhf, trl, verl
from saerl_assets.trainers.lint.rules import Finding, TrainerRules, check
from saerl_assets.trainers.lint.script import TRAINER_CLASSES, read_script
from saerl_assets.trainers.lint.settings import Document, Source, Unread
from saerl_assets.trainers.lint.shell import Word, find_file, read_commands
from saerl_assets.trainers.lint.yaml_file import read_yaml, scalar

if TYPE_CHECKING:
    from saerl_assets.trainers.export import ExportRecord

RULES: dict[str, TrainerRules] = {
    rules.name: rules for rules in (trl.GRPO, trl.DPO, verl.RULES, openrlhf.RULES, nemo_rl.RULES, ms_swift.RULES)
}
"""Every trainer whose configuration can be read."""

_MAX_BYTES = 20_000_000
_OVERRIDE = re.compile(r"[+~]{0,2}([A-Za-z_][\w.@/-]*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"--([A-Za-z_][\w.-]*)(?:=(.*))?", re.DOTALL)
_LIST = re.compile(r"\$([A-Za-z]\w*|\{\w+(\[[@*]\])?\}|\(.*\))", re.DOTALL)
"""A word that may stand for many arguments: a variable or an array that is set elsewhere, the output of a command."""
_ENVIRONMENT = ("NPROC_PER_NODE", "NNODES")
_PLAIN_EXPORTS = ("jsonl", "parquet")
_WORD_WEIGHT, _MARK_WEIGHT, _HINT_WEIGHT = 100, 10, 1
"""A command's or class's name says more than any setting, and one that only this trainer has more than others."""


@dataclass(frozen=True)
class LintReport:
    """What was found in one file."""

    file: str
    trainer: str
    title: str
    guessed_from: list[str]
    """What says that it is for this trainer; empty where it was told."""
    findings: list[Finding]

    @property
    def is_clean(self) -> bool:
        """Nothing breaks the order, and nothing that might was left unread."""
        return not any(finding.level != "caution" for finding in self.findings)

    def as_json(self) -> str:
        """For scripts."""
        return json.dumps(asdict(self) | {"is_clean": self.is_clean})

    def lines(self) -> list[str]:
        """For a person."""
        told = f", guessed from {', '.join(self.guessed_from)}" if self.guessed_from else ""
        lines = [f"{self.file}: {self.title}{told}"]
        for finding in self.findings:
            marker = {"problem": "problem", "unclear": "unclear", "caution": "note"}[finding.level]
            joined = ": " if finding.value.startswith(("not set", "cannot be read")) else " = "
            lines += [
                f"{marker}: {finding.file}:{finding.line}: {finding.setting}{joined}{finding.value}",
                f"  why: {finding.why}",
                f"  what to do: {finding.remedy}",
            ]
        counted: Counter[str] = Counter(finding.level for finding in self.findings)
        words = {"problem": "that break the order", "unclear": "that cannot be read here", "caution": "to know of"}
        summary = ", ".join(f"{counted[level]} {told}" for level, told in words.items() if counted[level])
        lines.append(summary if not self.is_clean else f"nothing breaks the order{f'; {summary}' if summary else ''}")
        return lines


def lint_config(
    path: Path, trainer: str | None = None, export: ExportRecord | None = None, folder: Path | None = None
) -> LintReport:
    """Reads a trainer's configuration and names every setting that breaks the order.

    Args:
        path: YAML, JSON, a Python program, a shell script or a text file with arguments or overrides.
        trainer: Name in `RULES`; guessed from the file if it is not said.
        export: The record of the export that is to be trained on; its sizes are checked too.
        folder: Where that export is, for scripts that read its settings by a path that only they know.

    Raises:
        SaerlError: `config_unreadable`, `config_invalid` with the line, `trainer_unclear`, `unknown_trainer`,
            `no_settings`.
    """
    if trainer is not None and trainer not in RULES:
        remedy = f"Trainers whose configuration can be read: {', '.join(RULES)}."
        raise SaerlError("unknown_trainer", f"There are no rules for {trainer!r}.", where="--trainer", remedy=remedy)
    documents = read_documents(path, folder)
    name, guessed_from = (trainer, []) if trainer else _guess(documents, path)
    rules = RULES[name]
    meant = [document for document in documents if _marks(document, rules)] or documents
    findings = _other_trainer(rules, export, path)
    for document in meant:
        _name_program(document, rules)
        findings += check(document, rules, export)
    order = {"problem": 0, "unclear": 1, "caution": 2}
    findings = sorted(dict.fromkeys(findings), key=lambda finding: order[finding.level])
    return LintReport(str(path), name, rules.title, guessed_from, findings)


def read_documents(path: Path, folder: Path | None = None) -> list[Document]:
    """Every document of a file that has settings.

    Raises:
        SaerlError: `config_unreadable`, `config_invalid`, `no_settings`.
    """
    text = _read(path)
    kind = _kind(path, text)
    if kind == "yaml":
        documents = [read_yaml(text, str(path))]
    else:
        documents = read_script(text, str(path)) if kind == "python" else _read_command_file(text, str(path), folder)
    documents = [
        document for document in documents if document.settings or document.unread or document.form == "python"
    ]
    if not documents:
        classes = " and ".join(TRAINER_CLASSES)
        remedy = (
            f"Only calls of {classes} are read. If they come from its command line, give the command or its YAML file."
            if path.suffix == ".py"
            else "Give a trainer's YAML or JSON file, a script that starts it, or a file with its arguments."
        )
        raise SaerlError("no_settings", "There is no setting in it.", where=str(path), remedy=remedy)
    return documents


def _read(path: Path) -> str:
    remedy = "Give the path of a trainer's YAML, JSON, Python or shell file."
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SaerlError("config_unreadable", "It is too large for a config.", where=str(path), remedy=remedy)
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SaerlError("config_unreadable", f"It cannot be read: {error}.", where=str(path), remedy=remedy) from error


def _kind(path: Path, text: str) -> str:
    """Which reader a file is for: by its name, else by how it begins."""
    known = {".yaml": "yaml", ".yml": "yaml", ".json": "yaml", ".py": "python", ".sh": "command", ".bash": "command"}
    if path.suffix in known:
        return known[path.suffix]
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines and not text.startswith("#!") and re.match(r"\s*[\w.\"']+:(\s|$)|\s*\{", lines[0]):
        return "yaml"
    return "command"


def _read_command_file(text: str, file: str, folder: Path | None) -> list[Document]:
    """One document per command. Where none starts a program, all lines together are one command's arguments."""
    commands, variables = read_commands(text, file, folder)
    if not any(_starts_program(command) for command in commands):
        commands = [[word for command in commands for word in command]]
    documents = [_command(words, file) for words in commands if words]
    for document in documents:
        for name in _ENVIRONMENT:
            if name in variables:
                document.put(name, scalar(variables[name]), document.line)
    return documents


def _starts_program(command: list[Word]) -> bool:
    """It begins with something that is neither an argument nor an override."""
    first = command[0].text
    return not first.startswith(("-", "+", "~", "$", "(", ")")) and not _OVERRIDE.fullmatch(first)


def _command(words: list[Word], file: str) -> Document:
    """The arguments `--a b`, `--a=b` and overrides `a=b` of a command."""
    document = Document(file, words[0].line, "arguments", said=[(word.text, word.line) for word in words])
    option: Word | None = None
    values: list[Word] = []
    for word in [*words, Word("--", file, words[-1].line)]:
        override = _OVERRIDE.fullmatch(word.text)
        if _LIST.fullmatch(word.text) and word is not words[0] and (option is None or values):
            document.unread.append(Source(word.text, word.file, word.line))
        elif not override and not word.text.startswith("-") and option is not None:
            values.append(word)
        elif not override and not re.fullmatch(r"-\d.*", word.text):
            _put_option(document, option, values)
            option, values = word if word.text.startswith("--") else None, []
        elif override and not word.text.startswith("~"):
            document.put(override[1], scalar(override[2]), word.line, file=word.file, form="hydra")
        elif option is not None:
            values.append(word)
    _read_named_files(document, words)
    return document


def _put_option(document: Document, option: Word | None, values: list[Word]) -> None:
    """An argument's value: on if there is none, a list if there are several. `--no_x` turns x off."""
    found = _OPTION.fullmatch(option.text) if option else None
    if option is None or found is None:
        return
    name = found[1].replace("-", "_")
    read = [scalar(text) for text in ([found[2]] if found[2] is not None else [word.text for word in values])]
    value: object = read[0] if len(read) == 1 else read or True
    document.put(name, value, option.line, file=option.file, form="arguments")
    if name.startswith("no_") and not read:
        document.put(name.removeprefix("no_"), value=False, line=option.line, file=option.file, form="arguments")


def _read_named_files(document: Document, words: list[Word]) -> None:
    """Lays a command over the file that it names with --config, --config-name or as `swift rlhf FILE`."""
    settings = document.settings
    name = settings["config"].value if "config" in settings else None
    if name is None and "config_name" in settings and "config_path" in settings:
        name = f"{settings['config_path'].value}/{settings['config_name'].value}".removesuffix(".yaml") + ".yaml"
        if any(isinstance(settings[key].value, Unread) for key in ("config_path", "config_name")):
            name = Unread(str(name))
    if name is None and (found := re.search(r"\bswift\s+rlhf\s+(\S+\.(?:ya?ml|json))", document.words)):
        name = found[1]
    if name is None:
        return
    path = None if isinstance(name, Unread) else find_file(str(name), document.file)
    if path is None:
        shown = name.text if isinstance(name, Unread) else str(name)
        document.unread.append(Source(shown, document.file, words[0].line))
    else:
        document.lay_over(read_yaml(_read(path), str(path)))


def _marks(document: Document, rules: TrainerRules) -> dict[str, int]:
    """What in a document says that it is for a trainer, each with its weight."""
    found = {}
    for pattern in rules.words:
        if match := re.search(pattern, document.words):
            found[match[0]] = _WORD_WEIGHT
    for weight, marks in ((_MARK_WEIGHT, rules.marks), (_HINT_WEIGHT, rules.hints)):
        for mark in marks:
            if any(fnmatchcase(path, mark) for path in document.settings):
                found[mark] = weight
    return found


def _guess(documents: list[Document], path: Path) -> tuple[str, list[str]]:
    """The trainer that most in the documents speaks for.

    Raises:
        SaerlError: `trainer_unclear` if there is none, or more than one.
    """
    found = {name: [_marks(document, rules) for document in documents] for name, rules in RULES.items()}
    weights = {name: max(sum(marks.values()) for marks in each) for name, each in found.items()}
    best = max(weights.values())
    chosen = [name for name, weight in weights.items() if weight == best]
    if best == 0 or len(chosen) > 1:
        seen = f"it could be for {' or '.join(chosen)}" if best else "nothing in it says so"
        remedy = f"Say it with --trainer: {', '.join(chosen if best else RULES)}."
        raise SaerlError(
            "trainer_unclear", f"Which trainer is it for? {seen.capitalize()}.", where=str(path), remedy=remedy
        )
    marks = max(found[chosen[0]], key=lambda each: sum(each.values()))
    ranked = sorted(marks, key=lambda mark: -marks[mark])
    return chosen[0], ranked[:3]


def _name_program(document: Document, rules: TrainerRules) -> None:
    """Puts in which program a command starts, for rules about that; saerl's own launchers bring right settings."""
    if document.form not in {"arguments", "hydra"}:
        return
    for word, line in document.said:
        if "saerl_assets.trainers" in word or any(re.search(pattern, word) for pattern in rules.words):
            document.put("program", word, line)
            if "saerl_assets" in word:
                document.put("saerl", value=True, line=line)
            return


def _other_trainer(rules: TrainerRules, export: ExportRecord | None, path: Path) -> list[Finding]:
    if export is None or export.trainer in {rules.name, *_PLAIN_EXPORTS}:
        return []
    why = f"The export is for {export.trainer}, the configuration for {rules.name}."
    remedy = f"Export for it: saerl export {export.dataset_version} --to {rules.name}."
    return [Finding("problem", "--manifest", str(path), 1, export.trainer, why, remedy)]
