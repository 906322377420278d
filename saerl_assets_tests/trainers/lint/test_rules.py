"""Every trap, in a configuration that has it and in one that has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from saerl_assets.trainers.lint.engine import RULES, lint_config
from saerl_assets_tests.trainers.lint.examples import EXAMPLES, GOOD, Example, export_of


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("trainer", sorted(RULES))
def test_what_keeps_the_order_is_clean(trainer: str, tmp_path: Path) -> None:
    for name, text in GOOD[trainer]:
        report = lint_config(write(tmp_path, name, text), export=export_of(trainer))
        assert report.findings == [], (name, report.lines())
        assert report.trainer == trainer
        assert report.is_clean
        assert report.guessed_from
        assert "nothing breaks the order" in report.lines()[-1]


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: f"{example.trainer}-{example.setting}-{example.value}"
)
def test_a_trap_is_named_with_its_place_and_remedy(example: Example, tmp_path: Path) -> None:
    name, good = GOOD[example.trainer][0]
    assert good.count(example.instead_of) == 1 or not example.instead_of, "the example changes one thing"
    text = good.replace(example.instead_of, example.by) if example.instead_of else good + example.by
    export = export_of(example.trainer) if example.with_export else None
    path = write(tmp_path, name, text)
    report = lint_config(path, export=export)
    found = [finding for finding in report.findings if finding.setting == example.setting]
    assert len(found) == 1, report.lines()
    assert [finding.setting for finding in report.findings] == [example.setting], "nothing else is said"
    assert found[0].level == example.level
    assert found[0].value == example.value
    assert found[0].file == str(path)
    if not example.value.startswith("not set"):
        written = example.value if example.setting == "program" else example.setting.rpartition(".")[2]
        assert written in text.splitlines()[found[0].line - 1]
    assert found[0].why.endswith(".")
    assert example.remedy in found[0].remedy
    assert report.is_clean is (example.level == "caution")
    unchanged = lint_config(write(tmp_path, name, good), export=export)
    assert not [finding for finding in unchanged.findings if finding.setting == example.setting]


def test_every_rule_has_an_example_that_fails() -> None:
    shown = {(example.trainer, example.setting) for example in EXAMPLES}
    missing = [
        (trainer, rule.setting)
        for trainer, rules in RULES.items()
        for rule in rules.rules
        if not any((trainer, name) in shown for name in (rule.setting, *rule.aliases, *_concrete(rule.aliases)))
    ]
    assert missing == []


def _concrete(names: tuple[str, ...]) -> list[str]:
    return [name.replace("*", "0") for name in names]
