from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from saerl_assets.domain.manifests import DEFERRED_COLUMNS

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "saerl_assets"
PAGE = CHECKOUT / "docs" / "troubleshooting.md"
FORWARDED = {"errors.py", "sae_sources.py", "sources.py"}
"""Modules that pass the code of another error on."""


def calls_of(name: str) -> Iterator[tuple[Path, ast.Call, ast.AST]]:
    """Every call of a class in the package, with the function that it is in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == name:
                inside = [each for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
                yield path, node, max(inside, key=lambda each: each.lineno, default=tree)


def texts(node: ast.AST) -> list[str]:
    """The texts that an expression may be: itself, or either side of a choice."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    return [*texts(node.body), *texts(node.orelse)] if isinstance(node, ast.IfExp) else []


def codes_of(call: ast.Call, function: ast.AST) -> list[str]:
    """The codes that a call may give: its first argument, or what the function assigns to that name."""
    first = call.args[0]
    if not isinstance(first, ast.Name):
        return texts(first)
    assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
    return [
        code
        for node in assigned
        for target in node.targets
        if isinstance(target, ast.Name) and target.id == first.id
        for code in texts(node.value)
    ]


def rows_of(heading: str) -> list[str]:
    """What stands in the first column of the tables under a heading of the page."""
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (found,) = [text for text in section if text.startswith(heading)]
    cells = re.findall(r"^\| (`.+?) \|", found, re.MULTILINE)
    return [code for cell in cells for code in re.findall(r"`(\w+)`", cell)]


def test_every_error_code_is_on_the_page_and_every_code_on_the_page_is_in_the_code() -> None:
    raised: dict[str, str] = {}
    for path, call, function in calls_of("SaerlError"):
        codes = codes_of(call, function)
        assert codes or path.name in FORWARDED, f"{path}:{call.lineno}: which code is this?"
        raised |= dict.fromkeys(codes, f"{path.relative_to(CHECKOUT)}:{call.lineno}")
    listed = rows_of("Error codes")
    assert len(listed) == len(set(listed)), "a code is there twice"
    assert {code: place for code, place in raised.items() if code not in listed} == {}
    assert set(listed) - set(raised) == set()
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", code) for code in raised)


def test_every_reason_for_a_row_is_on_the_page() -> None:
    listed = rows_of("Why a row was not taken")
    given = {code for _, call, function in calls_of("RowError") if call.args for code in codes_of(call, function)}
    assert given - set(listed) == set()
    assert len(given) > 10
    code_text = "".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
    assert [code for code in listed if f'"{code}"' not in code_text] == []


def test_every_reason_for_a_deferred_prompt_is_on_the_page() -> None:
    assert "reason_code" in DEFERRED_COLUMNS
    column = re.search(
        r"reason_code VARCHAR NOT NULL, +-- (.+)", (CHECKOUT / "sql/tables/deferred_prompts.sql").read_text()
    )
    assert column
    assert sorted(rows_of("Why a prompt is not in the order")) == sorted(re.split(r", | or ", column[1]))


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ("def f():\n    raise SaerlError('a_b', 'x', remedy='y')", ["a_b"]),
        ("def f(c):\n    raise SaerlError('a_b' if c else 'c_d', 'x', remedy='y')", ["a_b", "c_d"]),
        ("def f(c):\n    code = 'a_b' if c else 'c_d'\n    raise SaerlError(code, 'x', remedy='y')", ["a_b", "c_d"]),
        ("def f(code):\n    raise SaerlError(code, 'x', remedy='y')", []),
    ],
)
def test_codes_are_found_in_the_source(source: str, codes: list[str]) -> None:
    tree = ast.parse(source)
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert codes_of(call, tree) == codes
