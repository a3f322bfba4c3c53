"""Which names a function reads in a way that may decide what it returns, and not only to write them again.

A counter that is raised and a list that grows are written without being read: what they hold decides nothing. A scale
that is set where it was None, a memory that is looked up, a state that is moved on and multiplied with: those do.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence

MUTATORS = frozenset(
    re.findall(
        r"\w+",
        """append appendleft extend extendleft insert add update pop popleft popitem clear remove discard setdefault
        sort reverse subtract rotate move_to_end put put_nowait get_nowait write register record push""",
    )
)
"""Methods that change what they are called on."""
_SAYING = frozenset({"print", "debug", "info", "warning", "log", "write", "add_scalar"})
_BY_NAME = frozenset({"getattr", "hasattr"})


def base_name(value: ast.AST) -> str | None:
    """The attribute or variable that an expression such as ``self.table["n"][0]`` is a part of."""
    while True:
        if isinstance(value, (ast.Subscript, ast.Starred)):
            value = value.value
        elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            value = value.func.value
        else:
            break
    return value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else None


def names_read(function: ast.AST, methods: frozenset[str] = frozenset()) -> tuple[set[str], set[str]]:
    """Attributes and variables that a function reads, those under another name (``memo = self.memo``) too; and the
    attributes that it sets, whatever they were, before it calls one of its object's ``methods``."""
    reader = _Reads(methods)
    body = getattr(function, "body", [])
    reader.block(body if isinstance(body, list) else [ast.Expr(body)], frozenset())
    read = set(reader.read)
    for name in reader.read:
        while name in reader.aliases and reader.aliases[name] not in read:
            name = reader.aliases[name]
            read.add(name)
    return read, reader.set_first - read


class _Reads:
    def __init__(self, methods: frozenset[str]) -> None:
        self.methods = methods
        self.read: set[str] = set()
        self.set_first: set[str] = set()
        self.called = False
        self.depth = 0
        self.aliases: dict[str, str] = {}

    def block(self, statements: Sequence[ast.stmt], exempt: frozenset[str]) -> None:
        """Statements one after the other: what one of them sets for certain is new to those after it."""
        self.depth += 1
        for statement in statements:
            certain = self.statement(statement, exempt)
            exempt |= certain
            if self.depth == 1 and not self.called:
                self.set_first |= certain
        self.depth -= 1

    def statement(self, node: ast.stmt, exempt: frozenset[str]) -> frozenset[str]:
        """Reads of one statement; the attributes that it sets, whatever they were."""
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return self._assigned(targets, node.value, exempt, whole=not isinstance(node, ast.AugAssign))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self._called(node.value, exempt)
        for _, value in ast.iter_fields(node):
            if isinstance(value, ast.AST):
                self.expression(value, exempt)
            elif isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self.block(value, exempt)
            elif isinstance(value, list):
                for part in value:
                    self._part(part, exempt)
        return frozenset()

    def _part(self, part: object, exempt: frozenset[str]) -> None:
        body = getattr(part, "body", None)
        if isinstance(part, (ast.ExceptHandler, ast.match_case)) and isinstance(body, list):
            self.block(body, exempt)
        elif isinstance(part, ast.AST):
            self.expression(part, exempt)

    def _assigned(
        self, targets: Iterable[ast.expr], value: ast.expr | None, exempt: frozenset[str], whole: bool
    ) -> frozenset[str]:
        leaves = [leaf for target in targets for leaf in _leaves(target)]
        own = {name for leaf in leaves if (name := base_name(leaf)) is not None}
        own |= {self.aliases[name] for name in own if name in self.aliases}
        if len(leaves) == 1 and isinstance(leaves[0], ast.Name) and isinstance(value, (ast.Attribute, ast.Subscript)):
            name = base_name(value)
            if name is not None and name != leaves[0].id:
                self.aliases[leaves[0].id] = name
                own.add(name)
        for leaf in leaves:
            for part in ast.iter_child_nodes(leaf):
                self.expression(part, exempt | own)
        if value is not None:
            self.expression(value, exempt | own)
        attributes = {leaf.attr for leaf in leaves if isinstance(leaf, ast.Attribute)}
        read_again = {name for name in attributes if value is not None and name in _loads(value)}
        return frozenset(attributes - read_again) if whole else frozenset()

    def _called(self, call: ast.Call, exempt: frozenset[str]) -> frozenset[str]:
        """A call whose value nobody takes."""
        function = call.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        if name in _SAYING:
            return frozenset()
        own: set[str] = set()
        if isinstance(function, ast.Attribute) and (name in MUTATORS or (name.endswith("_") and name[:1] != "_")):
            own = {base} if (base := base_name(function.value)) is not None else set()
        self.expression(call, exempt | own)
        cleared = name == "clear" and isinstance(function, ast.Attribute) and isinstance(function.value, ast.Attribute)
        return frozenset(own) if cleared else frozenset()

    def expression(self, node: ast.AST, exempt: frozenset[str]) -> None:
        """All that an expression reads."""
        if isinstance(node, ast.stmt):
            self.block([node], exempt)
            return
        name = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in self.methods:
            self.called = True
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            name = node.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "next" and node.args:
                exempt |= {base} if (base := base_name(node.args[0])) is not None else frozenset()
            elif node.func.id in _BY_NAME and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                name = str(node.args[1].value)
        if name is not None and name not in exempt:
            self.read.add(name)
        for part in ast.iter_child_nodes(node):
            self.expression(part, exempt)


def _leaves(target: ast.expr) -> list[ast.expr]:
    if isinstance(target, (ast.Tuple, ast.List)):
        return [leaf for part in target.elts for leaf in _leaves(part)]
    return [target.value] if isinstance(target, ast.Starred) else [target]


def _loads(value: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)}
