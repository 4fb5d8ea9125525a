"""A part of a program: operators and parameters with the values of their symbols."""

from __future__ import annotations

from dataclasses import dataclass, field

from sympy import Expr, Symbol

from costmodel.ops import ZERO, Op, Weights

__all__ = ["Piece"]


@dataclass
class Piece:
    """What one side of a model contributes to a program.

    Attributes
    ----------
    ops : list of Op
        Operators in execution order.
    weights : list of Weights
        Parameters in memory.
    values : dict of Symbol to float
        Numbers.
    prefill, decode : dict of Symbol to Expr
        Relations between symbols in each pass.
    held : Expr
        Bytes live beside everything that runs in between its layers [B].
    """

    ops: list[Op] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    values: dict[Symbol, float] = field(default_factory=dict)
    prefill: dict[Symbol, Expr] = field(default_factory=dict)
    decode: dict[Symbol, Expr] = field(default_factory=dict)
    held: Expr = ZERO

    def relate(self, symbol: Symbol, expression: Expr) -> None:
        """Let `symbol` be `expression` in both passes; a number becomes a value."""
        if expression.is_number:
            self.values[symbol] = float(expression)
        else:
            self.prefill[symbol] = expression
            self.decode[symbol] = expression
