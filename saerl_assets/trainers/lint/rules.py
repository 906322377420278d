"""What a rule is, and holding a configuration against the rules of a trainer.

Belongs here: the shape of a rule, defaults, what is said about a setting that breaks one. Does not belong
here: the rules themselves (one file per trainer), reading files.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from saerl_assets.trainers.lint.settings import Document, Form, Setting, Unread

if TYPE_CHECKING:
    from saerl_assets.trainers.export import ExportRecord

Level = Literal["problem", "unclear", "caution"]
"""It breaks the order; it may, for its value cannot be read here; it changes something that one should know of."""


class _Whatever:
    """The value that a rule asks for where it has nothing to ask for."""

    def __repr__(self) -> str:
        return "WHATEVER"


WHATEVER = _Whatever()

_FLAG_WORDS = {"y": True, "t": True, "yes": True, "1": True, "n": False, "f": False, "no": False, "0": False}
"""How transformers' command lines take yes and no (hf_argparser.py, string_to_bool), beside true and false."""


@dataclass(frozen=True)
class Finding:
    """One thing that a configuration does to the order."""

    level: Level
    setting: str
    file: str
    line: int
    """Of the value; where it is not set, of the document that should set it."""
    value: str
    """As it is written, or 'not set; the default is ...'."""
    why: str
    remedy: str


@dataclass(frozen=True)
class Rule:
    """What a setting has to be."""

    setting: str
    """Dotted path; a `*` stands for anything."""
    right: object
    """The value that keeps the order, or a function that says it from the other settings; `WHATEVER` if any does."""
    why: str
    """What the trainer does otherwise, from its source."""
    remedy: str = ""
    """What to do, if not to set it to the right value."""
    fits: Callable[[object, object], bool] = operator.eq
    """Of the value and the right one."""
    level: Level = "problem"
    reads_text: bool = False
    """It looks at how the value is written, so it need not be known."""
    aliases: tuple[str, ...] = ()
    """Further paths at which the trainer reads the same."""


@dataclass(frozen=True)
class TrainerRules:
    """All that is known about how one trainer's settings touch the order."""

    name: str
    title: str
    """With the release that was read."""
    defaults: Mapping[str, object]
    rules: tuple[Rule, ...]
    words: tuple[str, ...]
    """Regular expressions for the commands and classes that mean this trainer."""
    marks: tuple[str, ...]
    """Settings that only this trainer has, by which a configuration without a command is known."""
    hints: tuple[str, ...] = ()
    """Settings that it shares with another one."""
    style: Form = "arguments"
    """How its settings are written on a command line."""
    processes: tuple[str, ...] = ()
    """Settings of launchers whose product is the number of training processes."""
    flags: frozenset[str] = field(default_factory=frozenset)
    """Arguments that are on by being there and take no value."""


class View:
    """A document with a trainer's defaults beneath it, and the export that is to be trained on, if there is one."""

    def __init__(self, document: Document, trainer: TrainerRules, export: ExportRecord | None) -> None:
        self.document = document
        self.trainer = trainer
        self.export = export

    def value(self, path: str) -> object:
        """The value of a setting, or its default."""
        found = self.document.settings.get(path)
        return found.value if found else self.trainer.defaults.get(path)

    def number(self, path: str) -> int:
        """As `value`, where it has to be a number.

        Raises:
            LookupError: It is none, or cannot be read here.
        """
        value = self.value(path)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise LookupError(path)
        return int(value)

    def processes(self) -> int | None:
        """How many processes train, where the launcher's own arguments say so."""
        told = [self.value(name) for name in self.trainer.processes]
        product = 1
        for value in told:
            product *= value if isinstance(value, int) and not isinstance(value, bool) else 1
        return product if any(isinstance(value, int) and not isinstance(value, bool) for value in told) else None


def with_export(size: Callable[[View, ExportRecord], object]) -> Callable[[View], object]:
    """A rule that only an export gives a value to."""

    def right(view: View) -> object:
        return WHATEVER if view.export is None else size(view, view.export)

    return right


def check(document: Document, trainer: TrainerRules, export: ExportRecord | None) -> list[Finding]:
    """Holds one document against all rules of a trainer."""
    view = View(document, trainer, export)
    findings = []
    for rule in trainer.rules:
        found = [setting for path, setting in document.settings.items() if _is_meant(rule, path)]
        if found:
            named = [path for path in document.settings if _is_meant(rule, path)]
            findings += [
                finding
                for path, setting in zip(named, found, strict=True)
                if (finding := _hold(rule, path, setting, view)) is not None
            ]
        elif not _is_beyond_reading(rule, document) and (finding := _hold(rule, rule.setting, None, view)):
            findings.append(finding)
    return [*findings, *_unread(document)]


def _is_meant(rule: Rule, path: str) -> bool:
    return any(fnmatchcase(path, name) for name in (rule.setting, *rule.aliases))


def _is_beyond_reading(rule: Rule, document: Document) -> bool:
    """A setting that something unread may set; saerl's own settings are right, but do not know the export's size."""
    return bool(document.unread) or ("saerl" in document.settings and rule.setting != "train_dataset")


def _hold(rule: Rule, path: str, setting: Setting | None, view: View) -> Finding | None:
    """A finding, if the setting is not as the rule has it."""
    value = setting.value if setting else view.trainer.defaults.get(rule.setting)
    try:
        right = rule.right(view) if callable(rule.right) else rule.right
    except LookupError as error:
        other = view.document.settings.get(str(error.args[0]))
        if other is None or (setting and isinstance(value, Unread) and value == other.value):
            return None
        right = WHATEVER if other is None else other.value
        if right == value:
            return None
        return _finding("unclear", rule, path, setting, view, f"{error.args[0]}, whose value cannot be read here")
    if right is WHATEVER:
        return None
    if isinstance(value, Unread) and not rule.reads_text:
        return _finding("unclear", rule, path, setting, view, right)
    value = value.text if isinstance(value, Unread) else value
    if setting and setting.form == "arguments" and isinstance(right, bool):
        value = _FLAG_WORDS.get(str(value).lower(), value)
    try:
        fits = rule.fits(value, right)
    except TypeError:
        fits = False
    return None if fits else _finding(rule.level, rule, path, setting, view, right)


def _finding(level: Level, rule: Rule, path: str, setting: Setting | None, view: View, right: object) -> Finding:
    form = setting.form if setting else view.document.form
    if setting is None and form in {"arguments", "hydra"}:
        form = view.trainer.style
    wanted = write(view.trainer, path, right, form)
    facts = {"right": plain(right)}
    if view.export is not None:
        export = view.export
        facts |= {"batch_size": str(export.batch_size), "n_rows": str(export.n_rows), "n_steps": str(export.n_steps)}
    if setting is None:
        told = f"not set; the default is {plain(view.trainer.defaults.get(rule.setting))}"
    else:
        told = setting.value.text if isinstance(setting.value, Unread) else plain(setting.value)
    remedy = rule.remedy.format_map(_Facts(facts)) or f"Set {wanted}."
    if level == "unclear":
        remedy = f"It cannot be read here; make sure that it is right, or write it out. {remedy}"
    return Finding(
        level=level,
        setting=path,
        file=setting.file if setting else view.document.file,
        line=setting.line if setting else view.document.line,
        value=told,
        why=rule.why.format_map(_Facts(facts)),
        remedy=remedy,
    )


class _Facts(dict[str, str]):
    """What a rule's text may name."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


def _unread(document: Document) -> list[Finding]:
    return [
        Finding(
            level="unclear",
            setting=source.text,
            file=source.file,
            line=source.line,
            value="cannot be read here",
            why="Settings come from there, and what is not set here may be set there.",
            remedy="Lint that file, or write the settings out.",
        )
        for source in document.unread
    ]


def write(trainer: TrainerRules, path: str, value: object, form: Form) -> str:
    """A setting as one writes it in such a file."""
    path = path.replace("*.", "")
    if form in {"yaml", "json"}:
        shown = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
        return f'"{path}": {shown}' if form == "json" else f"{path}: {shown}"
    if form == "arguments":
        if path in trainer.flags:
            return f"--{path}" if value else f"no --{path}"
        return f"--{path} {str(value).lower() if isinstance(value, bool) else value}"
    return f"{path}={'null' if value is None and form == 'hydra' else value!r}".replace(
        "'", '"' if form == "python" else ""
    )


def plain(value: object) -> str:
    """A value in words."""
    return "none" if value is None else str(value)
