"""Which checks can run in a process of their own, and what they ask of the code.

The decision looks at the checks alone, never at the code: whoever wrote the code must not choose how it is proven.
Checks may call functions of the code with plain values and look at what comes back. They cannot be split from it where
they share more: identity, exceptions and classes of the code's own, attributes of its objects, what it prints.
"""

import ast
import builtins
import symtable
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

__all__ = ["Questions", "questions"]

_MODULES = frozenset(
    (
        *("bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq"),
        *("itertools", "json", "math", "numbers", "operator", "random", "re", "statistics", "string", "textwrap"),
        *("time", "typing"),
    )
)
"""Modules that do the same in whatever process they are used."""
_SHARED = frozenset(
    (
        *("BaseException", "KeyboardInterrupt", "SystemExit", "__import__", "breakpoint", "compile", "delattr", "eval"),
        *("exec", "exit", "globals", "id", "input", "locals", "open", "quit", "setattr", "vars"),
    )
)
"""Builtins that look into the process that they are called in, or change it."""
_PLAIN_TYPES = (
    *(bool, bytearray, bytes, complex, dict, float, frozenset, int, list, range, set, str, tuple, type(None)),
    *(Decimal, Fraction, datetime, deque, timedelta, BaseException),
)
_ATTRIBUTES = frozenset(name for kind in _PLAIN_TYPES for name in dir(kind)) - {"__class__", "__dict__"}


@dataclass(frozen=True, slots=True)
class Questions:
    """Checks that run apart.

    Attributes:
        names: What they ask of the code.
        source: The checks, with the helpers before the code that are theirs.
    """

    names: tuple[str, ...]
    source: str


def questions(checks: str, before: str = "") -> Questions | None:
    """What checks ask of the code that stands before them; None where they have to run in its process.

    Args:
        checks: Python code.
        before: What the code continues. Whole helpers in it belong to the checks, so that the code cannot change them.
    """
    helpers = _helpers(before)
    try:
        tree = ast.parse(checks)
        free = _free(f"{helpers}\n{checks}")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    modules = {name for name in free & _MODULES if _is_module(tree, name)}  # the code might not import what checks need
    known = set(dir(builtins)) | {"__name__"}
    asked = free - known - modules
    if not asked:
        # A function may be called like a builtin (MBPP asks for a 'sum'): the only one that is used must be it.
        asked = {name for name in free & known if name.islower()}
        if len(asked) != 1:
            return None
    own_modules = modules | _imported(tree)
    if free & _SHARED or any(_shares(node, asked, own_modules) for node in ast.walk(tree)):
        return None
    imports = "".join(f"import {name}\n" for name in sorted(modules))
    return Questions(tuple(sorted(asked)), "".join((imports, helpers, "\n" * bool(helpers), checks)))


def _helpers(before: str) -> str:
    """What stands before the function that the code continues: everything, but for a last function without a body."""
    try:
        statements = ast.parse(before).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    if not statements:
        return ""
    last = statements[-1]
    if isinstance(last, ast.FunctionDef | ast.ClassDef) and all(_says_nothing(one) for one in last.body):
        first_line = min([last.lineno, *(one.lineno for one in last.decorator_list)])
        return "\n".join(before.splitlines()[: first_line - 1])
    return before


def _says_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _free(source: str) -> set[str]:
    """The names that source uses and does not bind itself."""
    top = symtable.symtable(source, "<tests>", "exec")
    used: set[str] = set()
    own = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported() or one.is_namespace()}
    for table in _tables(top):
        for one in table.get_symbols():
            if one.is_referenced() and (table is top or one.is_global()):
                used.add(one.get_name())
            if one.is_declared_global() and one.is_assigned():
                own.add(one.get_name())
    return used - own


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def _is_module(tree: ast.Module, name: str) -> bool:
    """Whether a name that is never bound is the module's: only attributes of it are used."""
    uses = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))
    return uses == sum(isinstance(node, ast.Attribute) and _is_name(node.value, {name}) for node in ast.walk(tree))


def _imported(tree: ast.Module) -> set[str]:
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {(one.asname or one.name).partition(".")[0] for node in imports for one in node.names}


def _is_name(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def _root(node: ast.expr) -> ast.expr:
    return _root(node.value) if isinstance(node, ast.Attribute) else node


def _shares(node: ast.AST, asked: set[str], modules: set[str]) -> bool:
    """Whether a part of the checks needs more than the values that functions of the code give."""
    match node:
        case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return True
        case ast.Import(names=names):
            return any(one.name.partition(".")[0] not in _MODULES for one in names)
        case ast.ImportFrom(module=module, names=names):
            return module not in _MODULES or any(one.name in ("*", "seed") for one in names)
        case ast.Compare(ops=ops, comparators=comparators):
            return any(
                isinstance(op, ast.Is | ast.IsNot) and not isinstance(other, ast.Constant)
                for op, other in zip(ops, comparators, strict=True)
            )
        case ast.ExceptHandler(type=ast.expr() as kind):
            return _mentions(kind, asked)
        case ast.ClassDef(bases=bases):
            return any(_mentions(base, asked) for base in bases)
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kind]):
            return _mentions(kind, asked)
        case ast.Attribute(value=value, attr=name):
            if _is_name(_root(value), modules):
                return name == "seed"
            return name not in _ATTRIBUTES or _is_name(value, asked)
    return False


def _mentions(node: ast.expr, names: set[str]) -> bool:
    return any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(node))
