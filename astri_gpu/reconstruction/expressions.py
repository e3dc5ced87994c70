"""Features and filters as text: a small grammar, read by Python's parser and never evaluated.

The text is cut into words first and refused at the first that the grammar does not know; then
Python's parser makes a tree of it, and only the kinds of nodes that are named here are taken over
into a tree of our own. ``eval`` and ``compile`` have no part in it.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from array_api_compat import array_namespace

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.options import did_you_mean
from astri_gpu.schema import TABLES

__all__ = ["ALIASES", "Expression", "parse"]

MAX_LENGTH = 1000  # characters
MAX_DEPTH = 100  # operations inside one another
MAX_EXPONENT = 10
LARGEST = float(np.finfo(np.float32).max)
SHOWN = 80  # characters of a text in a message

ALIASES = {
    entry.astri: entry.name
    for table in ("dl1/image", "dl2/image")
    for entry in TABLES[table].values()
    if entry.astri
}
"""Names of A-SciSoft and ours for the same columns."""

# Columns that say yes or no; the last comes from `astri_gpu.reconstruction.blocks`.
YES_NO = {
    *(name for table in TABLES.values() for name, entry in table.items() if entry.dtype == "bool"),
    "shower",
}

FUNCTIONS = {
    "log10": 1,
    "log": 1,
    "exp": 1,
    "sqrt": 1,
    "abs": 1,
    "sign": 1,
    "sin": 1,
    "cos": 1,
    "arctan2": 2,
    "hypot": 2,
    "minimum": 2,
    "maximum": 2,
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
OPERATORS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "negative": operator.neg,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "and": operator.and_,
    "or": operator.or_,
    "not": operator.invert,
}

# A number must not touch a name: Python reads "1and x" as "1 and x" and warns.
WORDS = re.compile(
    r"[ \t\r\n]+|[A-Za-z_][A-Za-z0-9_]*|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.])"
    r"|\*\*|[-+*/(),]|<=|>=|==|!=|[<>]"
)
HINTS = {
    "&": "write 'and' instead of '&&'",
    "|": "write 'or' instead of '||'",
    "!": "write 'not' instead of '!'",
    "^": "write '**' for a power",
    "=": "write '==' to compare",
    ".": "a name has no parts here",
}
GRAMMAR = (
    "Allowed are names of columns, numbers, + - * / **, parentheses and the functions "
    f"{', '.join(FUNCTIONS)} (angles in rad)"
)


@dataclass(frozen=True)
class _Number:
    value: float


@dataclass(frozen=True)
class _Name:
    name: str
    is_condition: bool = False


@dataclass(frozen=True)
class _Call:
    symbol: str  # of OPERATORS or FUNCTIONS
    arguments: "tuple[_Node, ...]"


_Node = _Number | _Name | _Call


@dataclass(frozen=True)
class Expression:
    """A function of columns; made by `parse`.

    Attributes
    ----------
    text
        As it was written.
    names
        Columns that it needs, by our names, in the order in which they appear.
    condition
        Whether its values are true and false.
    """

    text: str
    names: tuple[str, ...]
    condition: bool
    root: _Node

    def __call__(self, columns: Mapping[str, Any]) -> Any:
        """Return the value of each row.

        Everything is computed in float32, whatever the types of the columns. Where a value does
        not exist (the logarithm of a negative number, a division by 0) it is NaN or infinite,
        without a warning; a comparison with NaN is False (`!=` is True).

        Parameters
        ----------
        columns
            By name (row,) arrays of one namespace: NumPy, JAX, CuPy. Others are not looked at.

        Returns
        -------
        array
            float32 or, of a condition, bool (row,). It may be a column itself: not to be changed.

        Raises
        ------
        AstriError
            When a column is missing.
        """
        missing = [name for name in self.names if name not in columns]
        if missing:
            raise AstriError(
                f"The expression '{self.text}' needs {', '.join(missing)}: there is no such column."
            )
        xp = array_namespace(*(columns[name] for name in self.names))
        with np.errstate(all="ignore"):
            return _value(self.root, columns, xp)


def parse(text: str, *, condition: bool = False) -> Expression:
    """Return the function of columns that a text describes.

    The grammar: names of columns (A-SciSoft's ``SIZE``, ``LENGTH`` and so on stand for ours),
    finite numbers, ``+ - * /``, powers by numbers from -10 to 10, parentheses, and the functions
    log10, log, exp, sqrt, abs, sign, sin, cos, arctan2 (rad), hypot, minimum and maximum. In a
    condition also comparisons (chained ones too), ``and``, ``or`` and ``not``, and the names of
    columns that say yes or no. Precedences are those of Python. Whether the columns exist is not
    asked here (`astri_gpu.reconstruction.catalogue.check_features`).

    Parameters
    ----------
    text
        Such as "log10(hillas_intensity)".
    condition
        Whether it has to be true or false for each row; otherwise it has to be a number.

    Raises
    ------
    UsageError
        For everything else, with the place in the text and what is allowed.
    """
    if not isinstance(text, str):
        raise UsageError(f"An expression has to be text, not {type(text).__name__} {text!r:.40}.")
    reader = _Reader(text, condition)
    root = reader.read()
    if not reader.names:
        reader.refuse("it has no column: every row would have the same value", 0)
    return Expression(text, tuple(reader.names), condition, root)


class _Reader:
    """Makes our tree of one text, or a sentence."""

    def __init__(self, text: str, condition: bool) -> None:
        self._text, self._condition = text, condition
        self.names: dict[str, None] = {}  # a set that keeps the order

    def refuse(self, what: str, place: int) -> NoReturn:
        """Raise the sentence about character `place`, counted from 0."""
        text = self._text
        shown = repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")
        also = ", and in conditions < <= > >= == != and or not"
        raise UsageError(
            f"The {'condition' if self._condition else 'expression'} {shown} cannot be used: "
            f"{what} (character {place + 1}). {GRAMMAR}{also if self._condition else ''}."
        )

    def read(self) -> _Node:
        """Return the tree."""
        self._check_words()
        # One line for Python, without moving anything but the first word.
        line = re.sub(r"[\t\r\n]", " ", self._text)
        self._offset = len(line) - len(line.lstrip())
        try:
            tree = ast.parse(line.strip(), mode="eval").body
        except SyntaxError as error:
            # At the end of the text Python tells no place.
            place = error.offset - 1 if error.offset else len(line.strip())
            self.refuse(error.msg, self._offset + place)
        except (RecursionError, MemoryError):
            self.refuse("it is nested too deeply", 0)
        return self._truth(tree, 0) if self._condition else self._number(tree, 0)

    def _check_words(self) -> None:
        if not self._text.strip():
            self.refuse("it is empty", 0)
        if len(self._text) > MAX_LENGTH:
            self.refuse(
                f"it has {len(self._text)} characters and may have {MAX_LENGTH}", MAX_LENGTH
            )
        place = 0
        while place < len(self._text):
            found = WORDS.match(self._text, place)
            if found is None:
                sign = self._text[place]
                hint = f": {HINTS[sign]}" if sign in HINTS else ""
                self.refuse(f"{sign!r} is not understood here{hint}", place)
            place = found.end()

    def _place(self, node: ast.expr) -> int:
        return self._offset + node.col_offset

    def _deeper(self, node: ast.expr, depth: int) -> int:
        if depth >= MAX_DEPTH:
            self.refuse(
                f"more than {MAX_DEPTH} operations are inside one another", self._place(node)
            )
        return depth + 1

    def _number(self, node: ast.expr, depth: int) -> _Node:
        """Return the tree of something that has to be a number."""
        depth = self._deeper(node, depth)
        match node:
            case ast.Constant(value=value):
                if isinstance(value, bool) or not isinstance(value, int | float):
                    self.refuse(f"{value!r} is not a number", self._place(node))
                return self._finite(value, node)
            case ast.Name():
                return self._name(node)
            case ast.UnaryOp(op=ast.USub()):
                return self._call("negative", node, [node.operand], depth)
            case ast.BinOp() if type(node.op) in ARITHMETIC:
                call = self._call(ARITHMETIC[type(node.op)], node, [node.left, node.right], depth)
                return self._power(call, node) if isinstance(node.op, ast.Pow) else call
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
                if len(node.args) != FUNCTIONS[name]:
                    self.refuse(
                        f"{name} takes {FUNCTIONS[name]} value{'s' * (FUNCTIONS[name] > 1)}, not "
                        f"{len(node.args)}",
                        self._place(node),
                    )
                return self._call(name, node, node.args, depth)
            case ast.Call(func=ast.Name(id=name)):
                near = did_you_mean(name, FUNCTIONS)
                self.refuse(f"there is no function '{name}'{near}", self._place(node))
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                where = "inside a number" if self._condition else "in a feature"
                self.refuse(f"a comparison, and, or, not cannot stand {where}", self._place(node))
        self.refuse("this is not part of the grammar", self._place(node))

    def _truth(self, node: ast.expr, depth: int) -> _Node:
        """Return the tree of something that has to be true or false."""
        depth = self._deeper(node, depth)
        match node:
            case ast.BoolOp():
                symbol = "and" if isinstance(node.op, ast.And) else "or"
                return _joined(symbol, [self._truth(part, depth) for part in node.values])
            case ast.UnaryOp(op=ast.Not()):
                return _Call("not", (self._truth(node.operand, depth),))
            case ast.Compare():
                return self._comparison(node, depth)
            case ast.Name() if node.id in YES_NO:
                self.names[node.id] = None
                return _Name(node.id, is_condition=True)
        self.refuse("this is a number: compare it with another", self._place(node))

    def _comparison(self, node: ast.Compare, depth: int) -> _Node:
        values = [self._number(part, depth) for part in (node.left, *node.comparators)]
        parts: list[_Node] = []
        for k, kind in enumerate(node.ops):
            pair = (values[k], values[k + 1])
            if type(kind) not in COMPARISONS:
                self.refuse("this comparison is not part of the grammar", self._place(node))
            if all(isinstance(value, _Number) for value in pair):
                self.refuse("two numbers are compared: one side needs a column", self._place(node))
            parts.append(_Call(COMPARISONS[type(kind)], pair))
        return _joined("and", parts)

    def _name(self, node: ast.Name) -> _Name:
        if node.id in FUNCTIONS:
            self.refuse(f"{node.id} is a function: give it a value", self._place(node))
        name = ALIASES.get(node.id, node.id)
        self.names[name] = None
        return _Name(name)

    def _call(self, symbol: str, node: ast.expr, parts: list[ast.expr], depth: int) -> _Node:
        arguments = tuple(self._number(part, depth) for part in parts)
        if not all(isinstance(part, _Number) for part in arguments):
            return _Call(symbol, arguments)
        numbers = [np.float64(part.value) for part in arguments if isinstance(part, _Number)]
        if symbol == "**" and abs(numbers[1]) > MAX_EXPONENT:
            return _Call(symbol, arguments)  # refused by `_power`
        with np.errstate(all="ignore"):
            return self._finite(float(_operation(symbol, np)(*numbers)), node)

    def _power(self, call: _Node, node: ast.BinOp) -> _Node:
        """Refuse exponents that are columns or large."""
        if isinstance(call, _Call):
            exponent = call.arguments[1]
            if not isinstance(exponent, _Number) or abs(exponent.value) > MAX_EXPONENT:
                self.refuse(
                    f"an exponent has to be a number from -{MAX_EXPONENT} to {MAX_EXPONENT}",
                    self._place(node.right),
                )
        return call

    def _finite(self, value: float, node: ast.expr) -> _Number:
        if not abs(value) <= LARGEST:
            self.refuse("this number is not finite in single precision", self._place(node))
        return _Number(float(value))


def _joined(symbol: str, parts: list[_Node]) -> _Node:
    tree = parts[0]
    for part in parts[1:]:
        tree = _Call(symbol, (tree, part))
    return tree


def _operation(symbol: str, xp: Any) -> Callable[..., Any]:
    if symbol in OPERATORS:
        return OPERATORS[symbol]
    operation: Callable[..., Any] = getattr(xp, "atan2" if symbol == "arctan2" else symbol)
    return operation


def _value(node: _Node, columns: Mapping[str, Any], xp: Any) -> Any:
    """Return the value of a part of the tree: an array, or a number for a number."""
    if isinstance(node, _Number):
        return node.value
    if isinstance(node, _Name):
        dtype = xp.bool if node.is_condition else xp.float32
        return xp.astype(columns[node.name], dtype, copy=False)
    arguments = [_value(part, columns, xp) for part in node.arguments]
    if node.symbol in FUNCTIONS:
        arguments = [
            xp.asarray(part, dtype=xp.float32) if isinstance(part, float) else part
            for part in arguments
        ]
    return _operation(node.symbol, xp)(*arguments)
