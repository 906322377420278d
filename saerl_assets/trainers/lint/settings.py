"""What a configuration says, whatever file it is in: settings by dotted path, each with its file and line.

Belongs here: the values that every reader makes and every rule looks at. Does not belong here: reading files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Form = Literal["yaml", "json", "hydra", "arguments", "python"]
"""How a setting is written: `a: 1`, `"a": 1`, `a=1`, `--a 1`, `a=1` in a call."""

MAX_SETTINGS = 100_000
"""More than any configuration has; YAML's aliases can make billions out of a few lines."""


@dataclass(frozen=True)
class Unread:
    """A value that only the running program knows, as it is written: a variable, a call, an interpolation."""

    text: str


@dataclass(frozen=True)
class Setting:
    """One value, and where it is written."""

    value: object
    """None, bool, int, float, str, a list or dict of these, or `Unread`."""
    file: str
    line: int
    form: Form


@dataclass(frozen=True)
class Source:
    """Something that settings come from and that could not be read here."""

    text: str
    file: str
    line: int


@dataclass
class Document:
    """All that configures one training: a file, one command of a script, or one call in a program."""

    file: str
    line: int
    """Where it begins."""
    form: Form
    settings: dict[str, Setting] = field(default_factory=dict)
    said: list[tuple[str, int]] = field(default_factory=list)
    """The words of the command, or the name of the class, each with its line: what says which trainer it is for."""
    unread: list[Source] = field(default_factory=list)

    @property
    def words(self) -> str:
        """All that is said, as one line."""
        return " ".join(text for text, _ in self.said)

    def put(self, path: str, value: object, line: int, *, file: str | None = None, form: Form | None = None) -> None:
        """Sets one value; a later one wins."""
        self.settings[path] = Setting(value, file or self.file, line, form or self.form)

    def lay_over(self, base: Document) -> None:
        """Takes from another document what this one does not set itself, as a command does from its file."""
        self.settings = base.settings | self.settings
        self.unread = [*base.unread, *self.unread]
