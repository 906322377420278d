"""YAML and JSON with the line of every value.

Belongs here: mappings as dotted paths, references inside a file, a parent file that is named in it. Does not
belong here: what a setting means.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.lint.settings import MAX_SETTINGS, Document, Setting, Source, Unread

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_MAX_DEPTH = 50


def read_yaml(text: str, file: str) -> Document:
    """The settings of a YAML or JSON file.

    Nested mappings become `a.b`, mappings in a list `a.0.b`; the list itself is there too. `${a.b}` is followed
    within the file. A `defaults` that names files, as NeMo-RL's recipes have it, is read beneath where it is found.

    Raises:
        SaerlError: `config_invalid` with the line.
    """
    is_json = file.endswith(".json")
    if is_json:
        _refuse_other_than_json(text, file)
        text = text.replace("\t", " ")  # in JSON a tab is between values only, and YAML has none there
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise _invalid(error, file) from error
    document = Document(file, 1, "json" if is_json else "yaml")
    if root is None:
        return document
    if not isinstance(root, yaml.MappingNode):
        problem = "It holds no mapping from settings to values."
        raise SaerlError("config_invalid", problem, where=f"{file}:{_line(root)}", remedy="Give a trainer's config.")
    try:
        _flatten(loader, root, "", document, 0)
    except yaml.YAMLError as error:
        raise _invalid(error, file) from error
    _read_parents(document)
    _follow_references(document)
    return document


def scalar(text: str) -> object:
    """A value of a command line or an override, read as YAML reads a scalar or a list in brackets."""
    if "$" in text or "`" in text:
        return Unread(text)
    try:
        return yaml.safe_load(text) if len(text) < 10_000 else text
    except (yaml.YAMLError, ValueError):
        return text


def _refuse_other_than_json(text: str, file: str) -> None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        remedy = "Put the file right; python -m json.tool FILE shows the place."
        raise SaerlError(
            "config_invalid", f"It is not JSON: {error.msg}.", where=f"{file}:{error.lineno}", remedy=remedy
        ) from error


def _invalid(error: yaml.YAMLError, file: str) -> SaerlError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or str(error)
    return SaerlError(
        "config_invalid", f"It is not YAML: {problem}.", where=f"{file}{line}", remedy="Put that line right."
    )


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _flatten(loader: yaml.SafeLoader, node: yaml.Node, path: str, document: Document, depth: int) -> None:
    """Puts a node and all that is in it into the document."""
    if depth > _MAX_DEPTH or len(document.settings) > MAX_SETTINGS:
        problem = "It is nested or repeated beyond what a config is."
        raise SaerlError(
            "config_invalid", problem, where=f"{document.file}:{_line(node)}", remedy="Give a trainer's config."
        )
    below = f"{path}." if path else ""
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        if not node.value and path:
            document.put(path, {}, _line(node))
        for key, value in node.value:
            _flatten(loader, value, f"{below}{loader.construct_object(key, deep=True)}", document, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        items = [item.value if isinstance(item, yaml.ScalarNode) else "..." for item in node.value]
        document.put(path, items, _line(node))
        for at, item in enumerate(node.value):
            if isinstance(item, yaml.MappingNode):
                _flatten(loader, item, f"{below}{at}", document, depth + 1)
    else:
        document.put(path, loader.construct_object(node), _line(node))


def _read_parents(document: Document) -> None:
    """Lays the document over the files that its `defaults` names, where they are found beside it."""
    named = document.settings.get("defaults")
    if named is None:
        return
    folder = Path(document.file).parent
    for name in reversed(named.value if isinstance(named.value, list) else [named.value]):
        path = folder / str(name)
        if not str(name).endswith((".yaml", ".yml")):
            continue
        if not path.is_file() or path.resolve() == Path(document.file).resolve():
            document.unread.append(Source(f"defaults: {name}", document.file, named.line))
            continue
        parent = read_yaml(path.read_text(encoding="utf-8"), str(path))
        for replaced in [key.removesuffix("._override_") for key in document.settings if key.endswith("._override_")]:
            parent.settings = {
                key: value for key, value in parent.settings.items() if not key.startswith(f"{replaced}.")
            }
        document.lay_over(parent)


def _follow_references(document: Document) -> None:
    """Replaces `${a.b}` by what a.b is; another `${...}` and OmegaConf's `???` are known to the program alone."""
    for path, setting in document.settings.items():
        value, seen = setting.value, 0
        while isinstance(value, str) and (found := _REFERENCE.fullmatch(value)) and seen < _MAX_DEPTH:
            target = document.settings.get(found[1])
            value, seen = (target.value if target else Unread(value)), seen + 1
        if isinstance(value, str) and ("${" in value or value == "???"):
            value = Unread(value)
        document.settings[path] = Setting(value, setting.file, setting.line, setting.form)
