"""Python programs, parsed and never run: calls of GRPOConfig and DPOConfig, and what is done to the data before them.

Belongs here: values that are written out, names that stand for one such value, files that `**` takes settings
from. Does not belong here: what a setting means.
"""

from __future__ import annotations

import ast
import operator
from pathlib import Path
from typing import TYPE_CHECKING

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.lint.settings import Document, Source, Unread
from saerl_assets.trainers.lint.yaml_file import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGS = ("GRPOConfig", "DPOConfig")
TRAINER_CLASSES = {"GRPOConfig": "GRPOTrainer", "DPOConfig": "DPOTrainer"}
_OWN_LOADERS = ("saerl_assets.trainers.trl", "saerl_assets.trainers.trl_dpo")
"""Modules whose `load` gives settings that keep the order."""
REORDERING = {"shuffle", "sort", "filter", "select", "train_test_split", "concatenate_datasets", "interleave_datasets"}
"""Calls on a data set after which a row is not at its place any more."""
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}
_MAX_DEPTH = 20


def read_script(text: str, file: str) -> list[Document]:
    """One document for every call of a config class, or of a trainer in a program that makes its config elsewhere.

    Beside its arguments, `train_dataset` is there: the calls that reorder what the trainer is given.

    Raises:
        SaerlError: `config_invalid` with the line.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        where = f"{file}:{getattr(error, 'lineno', None) or 1}"
        problem = f"It is not Python: {getattr(error, 'msg', None) or error}."
        raise SaerlError("config_invalid", problem, where=where, remedy="Put that line right.") from error
    program = _Program(tree, file)
    found = [program.document(call) for call in program.calls(CONFIGS)]
    return found or [program.trainer_alone(call) for call in program.calls(tuple(TRAINER_CLASSES.values()))]


class _Program:
    """A parsed program: its calls, and what its names stand for."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self.tree = tree
        self.file = file
        self.assigned: dict[str, list[ast.expr]] = {}
        self.imported: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._assign(target, node.value)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                self._assign(node.target, node.value)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = alias.name

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.assigned.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Tuple | ast.List):
            for item in target.elts:
                self._assign(item, value)

    def calls(self, names: tuple[str, ...]) -> Iterator[ast.Call]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and _last_name(node.func) in names:
                yield node

    def document(self, call: ast.Call) -> Document:
        name = _last_name(call.func)
        document = Document(self.file, call.lineno, "python", said=[(name, call.lineno)])
        for keyword in call.keywords:
            if keyword.arg is None:
                self._spread(keyword.value, document)
            else:
                self._put(document, keyword.arg, keyword.value)
        for trainer in self.calls((TRAINER_CLASSES[name],)):
            self._look_at_data(trainer, document)
        return document

    def trainer_alone(self, call: ast.Call) -> Document:
        """A trainer whose config comes from elsewhere, such as the program's own command line."""
        name = _last_name(call.func)
        document = Document(self.file, call.lineno, "python", said=[(name, call.lineno)])
        arguments = next((keyword.value for keyword in call.keywords if keyword.arg == "args"), None)
        shown = f"args={ast.unparse(arguments)}"[:80] if arguments is not None else "args"
        document.unread.append(Source(shown, self.file, call.lineno))
        self._look_at_data(call, document)
        return document

    def _look_at_data(self, trainer: ast.Call, document: Document) -> None:
        for keyword in trainer.keywords:
            if keyword.arg == "train_dataset":
                document.put("train_dataset", self._reorderings(keyword.value), keyword.value.lineno)

    def _spread(self, node: ast.expr, document: Document, depth: int = 0) -> None:
        """Puts in what `**node` gives."""
        if depth > _MAX_DEPTH:
            return
        parts, bound = _parts(node), self._bound(node)
        for key, value in parts:
            if key is None:
                self._spread(value, document, depth + 1)
            else:
                self._put(document, key, value)
        if parts:
            return
        if self._is_own_loader(node):
            document.put("saerl", value=True, line=node.lineno)
        elif (path := self._json_file(node)) is not None:
            document.settings |= read_yaml(path.read_text(encoding="utf-8"), str(path)).settings
        elif bound is not None:
            self._spread(bound, document, depth + 1)
        elif not (isinstance(node, ast.Dict) and not node.keys):
            document.unread.append(Source(f"**{ast.unparse(node)}"[:80], self.file, node.lineno))

    def _put(self, document: Document, name: str, node: ast.expr) -> None:
        """One argument; one that is a dict of its own gives `name.key`, too."""
        document.put(name, self._value(node), node.lineno)
        for key, value in _parts(node):
            if key is not None:
                document.put(f"{name}.{key}", self._value(value), value.lineno)

    def _bound(self, node: ast.expr) -> ast.expr | None:
        """The one expression that a name stands for."""
        values = self.assigned.get(node.id, []) if isinstance(node, ast.Name) else []
        return values[0] if len(values) == 1 else None

    def _is_own_loader(self, node: ast.expr) -> bool:
        if not isinstance(node, ast.Call):
            return False
        written = ast.unparse(node.func)
        first, _, rest = written.partition(".")
        whole = ".".join(part for part in (self.imported.get(first, first), rest) if part)
        return whole.rpartition(".")[0] in _OWN_LOADERS

    def _json_file(self, node: ast.expr) -> Path | None:
        """The file of `json.load(open(...))` or `json.loads(Path(...).read_text())`, if it is there."""
        if not (isinstance(node, ast.Call) and _last_name(node.func) in {"load", "loads"}):
            return None
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.endswith(".json"):
                for path in (Path(part.value), Path(self.file).parent / part.value):
                    if path.is_file():
                        return path
        return None

    def _value(self, node: ast.expr, depth: int = 0) -> object:
        """What is written out, or what one assignment says."""
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
        bound = self._bound(node)
        if bound is not None and depth < _MAX_DEPTH:
            value = self._value(bound, depth + 1)
            return Unread(ast.unparse(node)) if isinstance(value, Unread) else value
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC and depth < _MAX_DEPTH:
            left, right = self._value(node.left, depth + 1), self._value(node.right, depth + 1)
            if isinstance(left, int) and isinstance(right, int) and right:
                return _ARITHMETIC[type(node.op)](left, right)
        return Unread(ast.unparse(node)[:80])

    def _reorderings(self, node: ast.expr, depth: int = 0) -> list[str]:
        """Names of the reordering calls between the source of a data set and here."""
        found = []
        for part in ast.walk(node):
            if isinstance(part, ast.Call) and (name := _last_name(part.func)) in REORDERING:
                found.append(name)
            elif isinstance(part, ast.Name) and depth < _MAX_DEPTH:
                for value in self.assigned.get(part.id, []):
                    if not any(isinstance(inner, ast.Name) and inner.id == part.id for inner in ast.walk(value)):
                        found += self._reorderings(value, depth + 1)
                    else:  # dataset = dataset.shuffle(): the name stands for its own earlier value
                        found += [_last_name(c.func) for c in ast.walk(value) if isinstance(c, ast.Call)]
        return sorted({name for name in found if name in REORDERING})


def _parts(node: ast.expr) -> list[tuple[str | None, ast.expr]]:
    """Keys and values of a dict that is written out, a key of None before another dict; nothing if it is none."""
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        return [(None if key is None else str(key), value) for key, value in zip(keys, node.values, strict=True)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [(None, node.left), (None, node.right)]
    if isinstance(node, ast.Call) and _last_name(node.func) == "dict" and not node.args:
        return [(keyword.arg, keyword.value) for keyword in node.keywords]
    return []


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
