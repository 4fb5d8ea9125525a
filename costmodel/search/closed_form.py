r"""Break-even of counts, solved from the formulas of the operators themselves.

FLOPs and bytes are sums of polynomials, so that their difference with and without compression is
a polynomial in the parameter, :math:`a x^2 + b x + c`, and its roots have a closed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import sympy
from sympy import Expr, Symbol

from costmodel.evaluation import FloatArray, evaluate_expressions
from costmodel.program import Program
from costmodel.search.families import Family
from costmodel.symbols import sym

__all__ = ["ClosedForm", "closed_form", "total_expression"]

CountMetric = Literal["flops", "bytes"]

_AGREES = 1e-9


@dataclass(frozen=True)
class ClosedForm:
    """Where counts with and without compression are equal.

    Attributes
    ----------
    symbol : str
        The parameter's symbol in the formulas.
    difference : Expr
        Count with compression less that without, in symbols.
    coefficients : tuple of Expr
        Of the powers of the symbol from 0 on, in the other symbols; empty if the difference is
        no polynomial.
    roots : tuple of float
        The real and positive ones as numbers, in order.
    values : dict of str to float
        Values of the other symbols.
    """

    symbol: str
    difference: Expr
    coefficients: tuple[Expr, ...]
    roots: tuple[float, ...]
    values: dict[str, float]

    @property
    def solutions(self) -> tuple[Expr, ...]:
        """Values of the symbol at which the difference is zero, in the other symbols.

        Empty if there are none, or the polynomial is of a higher degree than 2.
        """
        if len(self.coefficients) == 2:
            c, b = self.coefficients
            return (-c / b,)
        if len(self.coefficients) == 3:
            c, b, a = self.coefficients
            root = sympy.sqrt(b**2 - 4 * a * c)
            return ((-b - root) / (2 * a), (-b + root) / (2 * a))
        return ()


def total_expression(program: Program, metric: CountMetric) -> Expr:
    """Return FLOPs or bytes of a prefill in symbols that have values.

    Parameters
    ----------
    program : Program
        The program.
    metric : {"flops", "bytes"}
        Matrix products and convolutions [FLOP], or bytes moved by all operators [B].

    Returns
    -------
    Expr
        Without symbols that are relations of others.

    Examples
    --------
    >>> from costmodel.case import prepare
    >>> program, _ = prepare("llava-1.5-7b", "a40", text_tokens=64).program()
    >>> total_expression(program, "flops").diff(sym("b"), 2)
    0
    """
    ops = program.phase_ops("prefill")
    if metric == "flops":
        total = sum((op.repeat * op.flops for op in ops if op.matmul), start=sympy.Integer(0))
    else:
        total = sum((op.repeat * op.traffic.total for op in ops), start=sympy.Integer(0))
    relations = program.relations("prefill")
    while total.free_symbols & relations.keys():
        total = total.xreplace(relations)
    return total


def closed_form(
    compressed: Sequence[Family],
    baseline: Sequence[Family],
    values: FloatArray,
    difference: FloatArray,
    metric: CountMetric,
) -> ClosedForm | None:
    """Solve count with compression = count without for the parameter.

    Parameters
    ----------
    compressed, baseline : sequence of Family
        Programs of the two sides.
    values : ndarray
        Values of the parameter.
    difference : ndarray
        Count with compression less that without, as evaluated at these values.
    metric : {"flops", "bytes"}
        Which count.

    Returns
    -------
    ClosedForm or None
        None if no one symbol holds the parameter, or the difference is another formula
        in parts of the range.
    """
    if len(compressed) > 1 or len(baseline) > 1:
        return None
    one, other = compressed[0], baseline[0]
    varying = one.overrides | other.overrides
    if not varying or any((column != values).any() for column in varying.values()):
        return None
    found = _difference(one, other, metric, varying)
    if found is None:
        return None
    expression, symbol, numbers = found
    numeric = expression.xreplace({s: _exact(value) for s, value in numbers.items()})
    at_values = evaluate_expressions([numeric], {symbol: values})[0]
    scale = np.abs(difference).max() or 1.0
    if np.abs(at_values - difference).max() > _AGREES * scale:
        return None
    return ClosedForm(
        symbol.name,
        expression,
        *_solve(expression, numeric, symbol),
        {s.name: value for s, value in numbers.items()},
    )


def _difference(
    one: Family, other: Family, metric: CountMetric, varying: Mapping[str, FloatArray]
) -> tuple[Expr, Symbol, dict[Symbol, float]] | None:
    """The difference, its symbol, and the values of the other symbols."""
    # Several kinds of images have a symbol each for the same parameter.
    symbol = sym(next(iter(one.overrides or varying)))
    expressions = [total_expression(family.program, metric) for family in (one, other)]
    own = one.program.values, other.program.values
    clash = [s for s in own[0].keys() & own[1].keys() if own[0][s] != own[1][s]]
    for index, family in enumerate((one, other)):
        moving = {sym(name): symbol for name in family.overrides}
        fixed = {s: _exact(own[index][s]) for s in clash if s not in moving}
        expressions[index] = expressions[index].xreplace(moving | fixed)
    expression = sympy.expand(expressions[0] - expressions[1])
    values = {s: float(v) for table in reversed(own) for s, v in table.items()}
    return expression, symbol, {s: values[s] for s in expression.free_symbols - {symbol}}


def _exact(value: float) -> Expr:
    return sympy.Integer(int(value)) if float(value).is_integer() else sympy.Rational(value)


def _solve(
    expression: Expr, numeric: Expr, symbol: Symbol
) -> tuple[tuple[Expr, ...], tuple[float, ...]]:
    """Coefficients in symbols, and the real and positive roots."""
    try:
        polynomial = sympy.Poly(numeric, symbol)
    except sympy.PolynomialError:
        return (), ()
    if polynomial.degree() < 1:
        return (), ()
    terms = sympy.collect(expression, symbol, evaluate=False)
    coefficients = tuple(
        sympy.factor_terms(terms.get(symbol**power, sympy.Integer(0)))
        for power in range(polynomial.degree() + 1)
    )
    roots = polynomial.nroots(n=17)
    real = sorted(float(sympy.re(root)) for root in roots if abs(sympy.im(root)) < _AGREES)
    return coefficients, tuple(root for root in real if root > 0)
