from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from saerl_assets.domain.spec import Section
from saerl_assets.domain.spec_reference import spec_reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec.md"


def sections(model: type[BaseModel] = Section) -> list[type[BaseModel]]:
    return [each for below in model.__subclasses__() for each in (below, *sections(below))]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == spec_reference(), "docs/spec.md is not current: make docs"


def test_every_field_of_every_section_is_an_entry_with_a_text() -> None:
    entries = re.findall(r"^- \*\*`(\w+)`\*\*: .+\.  \n  \S", spec_reference(), re.MULTILINE)
    tables = re.findall(r"^## `\[+([\w.<>]+)\]+`$", spec_reference(), re.MULTILINE)
    holders = [table.removesuffix(".<name>").rpartition(".")[2] for table in tables]
    assert len(sections()) == len(tables) + 1  # and the top of the file
    assert sorted([*entries, *holders]) == sorted(name for model in sections() for name in model.model_fields)
    assert all(field.description for model in sections() for field in model.model_fields.values())


def test_limits_defaults_and_choices_are_said() -> None:
    page = spec_reference()
    assert "- **`max_dropped_fraction`**: number from 0 to 1; by default `0.2`.  \n" in page
    assert "- **`learning_rate`**: number, above 0; by default `0.003`.  \n" in page
    assert '- **`planner`**: `"clustered"` or `"balanced"`; by default `"clustered"`.  \n' in page
    assert (
        '- **`architecture`**: `"topk"`, `"batchtopk"`, `"jumprelu"` or `"matryoshka"`; by default `"topk"`.  \n'
        in page
    )
    assert '- **`source`**: text; or a list of such; by default `"auto"`.  \n' in page
    assert "- **`layers`**: list, not empty, each entry whole number, at least 0; by default `[15]`.  \n" in page
    assert "- **`key`**: text; required.  \n" in page
    assert "- **`parent`**: text; not set by default.  \n" in page
