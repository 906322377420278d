"""Command lines in shell scripts and text files, with the line of every word.

Belongs here: quotes, comments, continued lines, variables and arrays that the script itself sets, `$(cat
FILE)`. Does not belong here: what a word means to a trainer. Nothing is ever run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from saerl_assets.domain.errors import SaerlError

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_DECLARERS = {"export", "declare", "local", "readonly"}
_CAT = re.compile(r"\$\(\s*(?:cat\s+|<\s*)[\"']?([^\s()|;&\"']+)[\"']?\s*\)")
_ARROW = re.compile(r"\d*(>>?|<)")
_REDIRECTION = re.compile(r"\d*[<>]+[^<>]+")
_NAME = re.compile(r"\$(?:(\w+)|\{(\w+)(?:\[[@*]\])?(?::?-([^{}]*))?\})")


@dataclass(frozen=True)
class Word:
    """One word of a command, without its quotes."""

    text: str
    file: str
    line: int
    is_quoted: bool = False


class _Text:
    """The characters of a file, and where we are."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.file = file
        self.at = 0
        self.line = 1

    def peek(self, n: int = 1) -> str:
        return self.text[self.at : self.at + n]

    def take(self, n: int = 1) -> str:
        taken = self.text[self.at : self.at + n]
        self.at += n
        self.line += taken.count("\n")
        return taken

    def rest_of_line(self) -> str:
        end = self.text.find("\n", self.at)
        return self.text[self.at :] if end < 0 else self.text[self.at : end]

    def take_until(self, end: str, what: str) -> str:
        """All up to and with `end`; a backslash hides it within double quotes."""
        opened, start = self.line, self.at
        while self.at < len(self.text):
            if self.peek() == "\\" and end == '"':
                self.take(2)
            elif self.take() == end:
                return self.text[start : self.at - 1]
        remedy = "Close it."
        raise SaerlError(
            "config_invalid", f"A {what} that opens here is never closed.", where=f"{self.file}:{opened}", remedy=remedy
        )


def read_commands(text: str, file: str, export: Path | None = None) -> tuple[list[list[Word]], dict[str, str]]:
    """The commands of a script, their variables put in, and the script's variables.

    A variable that the script does not set stays as it is written, `$NAME`.

    Args:
        text: The script.
        file: Its path.
        export: Folder of an export, for a `cat` of one of its files whose path only the running script knows.

    Raises:
        SaerlError: `config_invalid` with the line, for a quote or bracket that is never closed.
    """
    variables: dict[str, list[Word]] = {}
    commands = []
    for words in _split(_Text(text, file)):
        rest = _take_assignments(words, variables)
        command = [filled for word in rest for filled in _fill(word, variables, export)]
        if command:
            commands.append(command)
    return commands, {name: " ".join(word.text for word in words) for name, words in variables.items()}


def _take_assignments(words: list[Word], variables: dict[str, list[Word]]) -> list[Word]:
    """Keeps `NAME=value` and `NAME=(...)` at a command's beginning; returns the words behind them."""
    at = 0
    while at < len(words) and (words[at].text in _DECLARERS or (at and words[at].text == "-a")):
        at += 1
    while at < len(words) and (found := _ASSIGNMENT.fullmatch(words[at].text)):
        name, adds, value = found.groups()
        at += 1
        if value == "(":
            close = next((i for i in range(at, len(words)) if words[i].text == ")"), len(words))
            values = [filled for word in words[at:close] for filled in _fill(word, variables)]
            at = close + 1
        else:
            values = _fill(Word(value, words[at - 1].file, words[at - 1].line, is_quoted=True), variables)
        variables[name] = [*variables.get(name, []), *values] if adds else values
    return words[at:]


def _fill(word: Word, variables: dict[str, list[Word]], export: Path | None = None) -> list[Word]:
    """A word with its variables put in; one that is nothing but a variable or a `cat` may become several."""
    text = word.text
    whole = _NAME.fullmatch(text)
    if whole and (known := variables.get(whole[1] or whole[2])) is not None:
        if "[" in text or not word.is_quoted:
            return [part for value in known for part in _parted(value, whole="[" in text)]
        return [Word(" ".join(value.text for value in known), word.file, word.line)]
    text = _NAME.sub(lambda found: _value(found, variables), text)
    listed = _CAT.fullmatch(text)
    if listed and not word.is_quoted and (path := find_file(listed[1], word.file, export)):
        return [part for line in _split(_Text(path.read_text(encoding="utf-8"), str(path))) for part in line]
    return [Word(text, word.file, word.line, word.is_quoted)]


def _parted(value: Word, *, whole: bool) -> list[Word]:
    return [value] if whole else [Word(part, value.file, value.line) for part in value.text.split()]


def _value(found: re.Match[str], variables: dict[str, list[Word]]) -> str:
    known = variables.get(found[1] or found[2])
    if known is not None:
        return " ".join(word.text for word in known)
    return found[0] if found[3] is None else found[3]


def find_file(name: str, named_in: str, export: Path | None = None) -> Path | None:
    """A file that a script names: from the working directory, beside the script, or in an export's folder."""
    places = [] if "$" in name else [Path(name), Path(named_in).parent / name]
    if export is not None:
        places.append(export / Path(name).name)
    return next((path for path in places if path.is_file()), None)


def _split(text: _Text) -> list[list[Word]]:
    """Words of each command as they are written, without quotes, comments, redirections and here-documents."""
    commands: list[list[Word]] = [[]]
    here: list[str] = []
    depth = 0
    while char := text.peek():
        if char == "#":
            text.take(len(text.rest_of_line()))
        elif text.peek(2) == "\\\n" or char in " \t":
            text.take(2 if char == "\\" else 1)
        elif char in "\n;|&":
            text.take()
            if char == "\n" and here:
                _skip_here_document(text, here.pop(0))
            if char != "\n" or not depth:
                commands.append([])
        elif char in "()":
            depth = max(0, depth + (1 if char == "(" else -1))
            commands[-1].append(Word(text.take(), text.file, text.line))
        else:
            word = _word(text)
            depth += _opens_array(word)
            commands[-1] += _kept(word, here)
    return [kept for words in commands if (kept := _without_redirections(words))]


def _opens_array(word: Word) -> bool:
    return word.text.endswith("=(") and not word.is_quoted


def _kept(word: Word, here: list[str]) -> list[Word]:
    """The word, unless it is the end of a here-document, which is noted, or a redirection that names its file."""
    if found := re.fullmatch(r"<<-?(\w+)", word.text):
        here.append(found[1])
    return [] if found or (_REDIRECTION.fullmatch(word.text) and not word.is_quoted) else [word]


def _without_redirections(words: list[Word]) -> list[Word]:
    """Words without `>` and the file behind it."""
    arrows = [at for at, word in enumerate(words) if _ARROW.fullmatch(word.text) and not word.is_quoted]
    return [word for at, word in enumerate(words) if at not in arrows and at - 1 not in arrows]


def _skip_here_document(text: _Text, end: str) -> None:
    while text.peek():
        line = text.take(len(text.rest_of_line()) + 1)
        if line.strip() == end:
            return


def _word(text: _Text) -> Word:
    """The word that begins here."""
    line, parts, is_quoted = text.line, [], False
    while (char := text.peek()) and char not in " \t\n;|":
        if char == "'":
            text.take()
            parts.append(text.take_until("'", "quote"))
            is_quoted = True
        elif char == '"':
            text.take()
            parts.append(re.sub(r'\\(["\\$`]|\n)', lambda found: found[1].strip("\n"), text.take_until('"', "quote")))
            is_quoted = True
        elif char == "\\":
            parts.append("" if text.take(2) == "\\\n" else text.text[text.at - 1])
        elif text.peek(2) == "$(":
            parts.append(_substitution(text))
        elif text.peek(2) == "${":
            parts.append(text.take_until("}", "bracket") + "}")
        elif char == "&" and not "".join(parts).endswith((">", "<")):
            break
        elif char in "()":
            if char == "(" and "".join(parts).endswith("="):
                parts.append(text.take())
            break
        else:
            parts.append(text.take())
    return Word("".join(parts), text.file, line, is_quoted)


def _substitution(text: _Text) -> str:
    """`$( ... )` as it is written, brackets within it balanced."""
    opened, start, depth = text.line, text.at, 0
    text.take()
    while text.peek():
        depth += {"(": 1, ")": -1}.get(text.take(), 0)
        if not depth:
            return text.text[start : text.at]
    raise SaerlError(
        "config_invalid", "A $( that opens here is never closed.", where=f"{text.file}:{opened}", remedy="Close it."
    )
