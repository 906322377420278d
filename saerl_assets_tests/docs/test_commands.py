"""What the pages tell people to type: commands, specs, programs and links, held against what there is.

Belongs here: README.md and docs/*.md as they stand. Does not belong here: whether their prose is right.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from saerl_assets.cli import main
from saerl_assets.component import SaerlComponent
from saerl_assets.domain.gym import parse_tasks
from saerl_assets.domain.spec import VersionSpec, parse_spec
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SEPARATORS = {"&&", "||", ";", "|", "&"}
REDIRECTIONS = {">", ">>", "<"}
PROGRAMS = {
    "dagster": "dagster._cli:cli",
    "dagster-webserver": "dagster_webserver.cli:dagster_webserver",
    "dagster-daemon": "dagster._daemon.cli:cli",
    "dg": "dagster_dg_cli.cli:cli",
}
"""Programs whose verbs and options are known, with the click command behind each."""
READ_ONLY = {"versions", "show", "manifest", "sql", "plan", "gc", "doctor"}
UNKNOWN_HERE = {"topics"}
"""Tables that the worked example adds; test_worked_example asks for them."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            indent, spoken, inside = match.groups()
            inside = re.sub(rf"^{indent}", "", inside, flags=re.MULTILINE)
            found.append(Block(page, text[: match.start()].count("\n") + 1, spoken, inside))
    return [block for block in found if block.language == language]


def commands_in(text: str) -> Iterator[list[str]]:
    """Every command of a shell text, as its words: comments, variables set before it and redirections left out."""
    text = re.sub(r"\\\n", " ", re.sub(r"<([\w-]+)>", r"\1", text))
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.wordchars += "$:{}@#[],"
        lexer.commenters = ""
        words: list[str] = []
        before = ""
        for word in [*lexer, ";"]:
            is_target, before = before in REDIRECTIONS, word
            if word.startswith("#") and not words:
                break
            if is_target or word in REDIRECTIONS:
                continue
            if word in SEPARATORS:
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def without_comment(line: str) -> str:
    """The line up to a ` #` that is in no quotes."""
    return re.sub(r"""^((?:[^'"#]|"[^"]*"|'[^']*'|(?<! )#)*)\s#.*$""", r"\1", line)


def named(value: str | list[str]) -> str:
    """How a test of a command is called."""
    return value if isinstance(value, str) else " ".join(value)[:60]


def shell_lines() -> list[tuple[str, list[str]]]:
    return [
        (str(block), words)
        for block in blocks("bash")
        for words in commands_in("\n".join(map(without_comment, block.text.splitlines())))
    ]


def inline() -> list[tuple[str, list[str]]]:
    """Commands within sentences, as `saerl run KEY`."""
    found = []
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        found += [(page.name, shlex.split(code)) for code in re.findall(r"`(saerl [^`]+)`", text)]
    return found


def understand(command: click.Command, words: list[str]) -> click.Context:
    """Parses a command line as the program does, without running it.

    Raises:
        click.UsageError: A verb, option or argument that does not exist, or one that is missing.
    """
    context = command.make_context(command.name, list(words), resilient_parsing=False)
    while isinstance(context.command, click.Group):
        left = [*context._protected_args, *context.args]
        if not left:
            return context
        name, verb, rest = context.command.resolve_command(context, left)
        assert verb is not None
        context = verb.make_context(name, rest, parent=context)
    return context


def options_are_known(command: click.Command, words: list[str]) -> None:
    """Verbs and long options of somebody else's program exist; its arguments are not looked at."""
    context = click.Context(command)
    for word in words:
        if isinstance(command, click.Group):
            inner = command.get_command(context, word)
            assert inner is not None, f"no verb {word!r}"
            command = inner
        elif word.startswith("-"):
            known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
            assert word.partition("=")[0] in known, f"no option {word}"
    assert not isinstance(command, click.Group), "a verb is missing"


def program(name: str) -> click.Command:
    module, _, attribute = PROGRAMS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, click.Command)
    return found


@pytest.mark.parametrize(("place", "words"), shell_lines(), ids=named)
def test_every_command_of_a_block_exists(place: str, words: list[str]) -> None:
    name, *rest = words
    if name == "saerl":
        understand(main, rest)
    elif name in PROGRAMS:
        options_are_known(program(name), rest)
    elif name == "make":
        targets = re.findall(r"^([\w%-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets), place
    elif name.startswith("python") and rest[0] == "-m":
        assert not rest[1].startswith("saerl_assets") or importlib.util.find_spec(rest[1]), place
    elif name.startswith("python") and rest[0].endswith(".py"):
        text = (CHECKOUT / rest[0]).read_text(encoding="utf-8")
        missing = [word for word in rest if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text]
        assert missing == [], f"{place}: {rest[0]} does not know {missing}"
    for word in rest:
        if re.match(r"(examples|benchmarks|conformance|docs|sql)/[\w/.-]+$", word):
            assert (CHECKOUT / word).exists(), f"{place}: there is no {word}"


@pytest.mark.parametrize(("place", "words"), inline(), ids=named)
def test_every_command_in_a_sentence_exists(place: str, words: list[str]) -> None:
    try:
        understand(main, words[1:])
    except (click.MissingParameter, click.BadOptionUsage):
        pass  # a sentence may name a verb or an option alone
    except click.exceptions.Exit:
        assert "--help" in words, place


def on_the_tiny_home() -> list[list[str]]:
    """The commands that only look, each once, about the tiny version."""
    found = []
    for _, (name, *words) in [*shell_lines(), *inline()]:
        asked = [re.sub(r"\b(?:[a-z0-9_]+-v\d+|KEY)\b", KEY, word) for word in words]
        looks = name == "saerl" and asked and asked[0] in READ_ONLY and not {"--yes", "--use", "--rollback"} & {*asked}
        is_whole = looks and (len(asked) > 1 or asked[0] in {"versions", "gc", "doctor"})
        if is_whole and not UNKNOWN_HERE & set(re.findall(r"\w+", " ".join(asked))) and asked not in found:
            found.append(asked)
    return found


def test_some_commands_only_look() -> None:
    assert {words[0] for words in on_the_tiny_home()} >= {"show", "sql", "plan", "gc", "doctor"}


@pytest.mark.parametrize("words", on_the_tiny_home(), ids=named)
def test_commands_that_only_look_work(
    words: list[str], tiny_home: HomeResource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAERL_HOME", tiny_home.root)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code in ({0, 1} if words[0] == "doctor" else {0}), done.output  # doctor judges the machine too


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_every_toml_block_is_a_spec_or_a_part_of_one(block: Block) -> None:
    document = tomllib.loads(block.text)
    if "families" in document:
        parse_tasks(document)
        return
    assert set(document) <= set(VersionSpec.model_fields), "neither a spec nor a file of tasks"
    changes: dict[str, Any] = {} if "key" in document else {"key": "mine-v2"}
    if "source" not in document.get("data", {}):
        changes["data"] = {"source": "path:prompts.jsonl"}
    parse_spec(block.text, str(block), changes)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_python_block_compiles_and_imports_what_there_is(block: Block) -> None:
    tree = ast.parse(block.text)
    compile(tree, str(block), "exec")
    added = set(re.findall(r"^`saerl_assets/([\w/]+)\.py`$", block.page.read_text(encoding="utf-8"), re.MULTILINE))
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("saerl_assets."):
            continue
        module = str(node.module)
        if module.removeprefix("saerl_assets.").replace(".", "/") not in added:
            found = importlib.import_module(module)
            missing = [each.name for each in node.names if not hasattr(found, each.name)]
            assert missing == [], f"{module} has no {missing}"
    if "build_definitions(" in block.text:
        exec(compile(tree, str(block), "exec"), {"__name__": "documented"})  # noqa: S102 - our own page


@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")  # Dagster's own
@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_block_of_the_component_is_one(block: Block) -> None:
    document = yaml.safe_load(block.text)
    if document.get("type") != "saerl_assets.SaerlComponent":
        pytest.skip("not ours")
    component = SaerlComponent.resolve_from_dict(document["attributes"])
    assert component.key_prefix == document["attributes"]["key_prefix"]


def slugs(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if re.match(r"[a-z]+:", link):
            continue
        if not target.exists() or (anchor and anchor not in slugs(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock of util-linux")
def test_the_backup_is_a_home(copied_home: HomeResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = [block.text for block in blocks("bash") if "tar --create" in block.text]
    monkeypatch.setenv("SAERL_HOME", copied_home.root)
    subprocess.run(["bash", "-euc", command], cwd=tmp_path, check=True)
    restored = tmp_path / "restored"
    restored.mkdir()
    subprocess.run(["tar", "--extract", "--file", "saerl.tar", "--directory", str(restored)], cwd=tmp_path, check=True)
    assert not (restored / "work").exists()
    monkeypatch.setenv("SAERL_HOME", str(restored))
    done = CliRunner().invoke(main, ["show", KEY], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "version_report" in done.output


@pytest.mark.parametrize(
    "line",
    ["saerl runn mine-v1", "saerl run mine-v1 --onyl prompts", "saerl export mine-v1", "saerl labels ad mine-v1 FILE"],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        understand(main, line.split()[1:])


def test_shell_text_is_taken_apart_as_a_shell_does() -> None:
    text = (
        'A=1 saerl run KEY  # a word\n# nothing\ncd x && saerl sql "FROM t; -- # x" | less\nsaerl show \\\n  <key> > a'
    )
    lines = "\n".join(map(without_comment, text.splitlines()))
    assert list(commands_in(lines)) == [
        ["saerl", "run", "KEY"],
        ["cd", "x"],
        ["saerl", "sql", "FROM t; -- # x"],
        ["less"],
        ["saerl", "show", "key"],
    ]
    with pytest.raises(AssertionError, match="no option"):
        options_are_known(program("dagster-daemon"), ["run", "--not-there"])
