"""Every symbol of every formula, made once, with meaning and unit.

Two sympy symbols of one name but other assumptions are different symbols, so
no other module makes any.  The nomenclature page is generated from `TABLE`.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy

__all__ = ["TABLE", "SymbolInfo", "indexed", "info", "sym"]


@dataclass(frozen=True)
class SymbolInfo:
    """Meaning and unit of one symbol.

    Attributes
    ----------
    name : str
        Name in text formulas and in `evaluate` overrides.
    latex : str
        Name in LaTeX formulas.
    meaning : str
        What it is.
    unit : str
        Its unit; "1" for counts.
    group : str
        Heading on the nomenclature page.
    """

    name: str
    latex: str
    meaning: str
    unit: str
    group: str


def _rows(group: str, *rows: tuple[str, str, str, str]) -> list[SymbolInfo]:
    return [SymbolInfo(name, latex, meaning, unit, group) for name, latex, meaning, unit in rows]


TABLE: dict[str, SymbolInfo] = {
    row.name: row
    for row in [
        *_rows(
            "Workload",
            ("b", "b", "batch size: requests computed together", "requests"),
            ("T", "T", "text tokens of the prompt, everything that is not visual", "tokens"),
            ("V", "V", "visual tokens that enter the language model", "tokens"),
            (
                "s",
                "s",
                "tokens each sequence computes in this pass (prefill: T + V; decode: 1)",
                "tokens",
            ),
            ("p", "p", "tokens already in the KV cache (prefill: 0)", "tokens"),
            (
                "sk",
                "s_k",
                "tokens whose keys and values are computed, where that is not s",
                "tokens",
            ),
            ("sm", "s_m", "tokens that pass the MLP, where that is not s", "tokens"),
            ("sa", "s_a", "tokens that attend and are attended, where that is not s", "tokens"),
            (
                "v",
                "v",
                "visual embeddings merged into the prompt in this pass (decode: 0)",
                "tokens",
            ),
            ("e", "e", "positions per sequence that the head computes (1, or all)", "tokens"),
            ("o", "o", "output tokens generated per request", "tokens"),
        ),
        *_rows(
            "Language model",
            ("L", "L", "decoder layers (of one group)", "layers"),
            ("d", "d", "hidden size", "1"),
            ("H", "H", "query heads", "heads"),
            ("G", "G", "key/value heads (GQA groups)", "heads"),
            ("D", "D", "head dimension", "1"),
            ("f", "f", "MLP intermediate size", "1"),
            ("W", "W", "vocabulary size", "1"),
            ("N", "N", "tensor-parallel devices", "devices"),
        ),
        *_rows(
            "Vision tower",
            ("t", "t", "sequences (tiles, images or frames) per request", "sequences"),
            ("n", "n", "tokens of one tower sequence, class token included", "tokens"),
            ("g", "g", "patches of one tower sequence", "patches"),
            ("z", "z", "tokens of one attention window", "tokens"),
            ("y", "y", "attention windows per request", "windows"),
            ("Lv", "L_v", "vision layers that run (of one group)", "layers"),
            ("Lw", "L_w", "vision layers with window attention", "layers"),
            ("Mv", "M_v", "vision layers that exist", "layers"),
            ("dv", "d_v", "vision hidden size", "1"),
            ("Hv", "H_v", "vision heads", "heads"),
            ("Dv", "D_v", "vision head dimension", "1"),
            ("fv", "f_v", "vision MLP intermediate size", "1"),
            ("P", "P", "patch side", "pixels"),
            ("C", "C", "image channels", "1"),
            ("F", "F", "frames joined by one patch (temporal patch size)", "frames"),
            ("Ev", "E_v", "rows of the learned position table", "1"),
            ("Uv", "U_v", "vision parameters no operator touches", "parameters"),
        ),
        *_rows(
            "Projector",
            ("r", "r", "rows per request that leave the projector", "tokens"),
            ("q", "q", "spatial merge: q x q neighbours become one row", "1"),
            ("di", "d_i", "width of one tower token entering the projector", "1"),
            ("w", "w", "output width of a projector layer", "1"),
        ),
        *_rows(
            "Compression",
            ("u", "u", "images (or videos) per request with the same token count", "images"),
            ("m", "m", "visual tokens of one image before compression", "tokens"),
            ("k", "k", "visual tokens of one image after compression", "tokens"),
            ("c", "c", "width of the vectors the method works on", "1"),
            ("I", "I", "Lloyd iterations", "1"),
            ("R", "R", "k-means restarts (n_init)", "1"),
            ("J", "J", "candidates tried per k-means++ centre", "1"),
            ("a", "a", "side of the fused neighbourhood", "1"),
            ("B", "B", "tower layers tapped", "layers"),
            ("h", "h", "hidden width of the fusion module", "1"),
            ("Lr", "L_r", "decoder layers that run before the tokens are chosen", "layers"),
            ("ks", "k_s", "of the tokens of one image that remain, those kept by score", "tokens"),
            ("uc", "u_c", "crops of one image that get a share of the tokens each", "crops"),
            ("xc", "x_c", "of these, crops that get one more token after rounding down", "crops"),
            ("dt", "d_t", "hidden size of a CLIP text tower", "1"),
            ("Ht", "H_t", "heads of a CLIP text tower", "heads"),
            ("Lt", "L_t", "layers of a CLIP text tower", "layers"),
            ("ft", "f_t", "MLP intermediate size of a CLIP text tower", "1"),
            ("nt", "n_t", "positions of a CLIP text tower: tokens of one segment", "tokens"),
            ("st", "s_t", "segments the question is cut into for a CLIP text tower", "1"),
            ("Wt", "W_t", "vocabulary size of a CLIP text tower", "1"),
            ("et", "e_t", "width of the space CLIP compares images and text in", "1"),
            (
                "vl",
                "v_l",
                "visual tokens of a request left from a layer of the language model on, "
                "without markers",
                "tokens",
            ),
            ("vr", "v_r", "dropped visual tokens of a request that are recycled", "tokens"),
            ("vc", "v_c", "clusters that recycled tokens become", "tokens"),
            ("x", "x", "tokens of one tower sequence merged away before a vision layer", "tokens"),
            ("kt", "k_t", "visual tokens that remain of one tower sequence", "tokens"),
            ("kc", "k_c", "of these, means of the tokens that were not chosen", "tokens"),
            ("ko", "k_o", "of these, tokens chosen by attention alone", "tokens"),
            ("kg", "k_g", "tokens on an even grid of one tower sequence", "tokens"),
            ("nb", "n_b", "nearest tokens merged into each one that remains", "tokens"),
            ("jr", "j_r", "rounds in which the most similar pairs lose a token", "rounds"),
            ("js", "j_s", "tokens that one such round removes", "tokens"),
            ("hq", "h_q", "attention heads of a resampler", "heads"),
            ("nq", "n_q", "learned queries of a resampler", "queries"),
            ("sd", r"\sigma", "standard deviation of a data-dependent token count", "tokens"),
        ),
        *_rows(
            "Storage",
            ("bw", r"\beta_w", "bytes of one linear-layer weight", "B"),
            ("bo", r"\beta_o", "bytes of one other weight (norm, bias, embedding, head)", "B"),
            ("ba", r"\beta_a", "bytes of one activation", "B"),
            ("bkv", r"\beta_{kv}", "bytes of one KV-cache element", "B"),
            (
                "bs",
                r"\beta_s",
                "bytes that unfused kernels hold of one attention score, at its softmax",
                "B",
            ),
        ),
    ]
}
"""Name -> `SymbolInfo` of every symbol; indexed ones (``s_1``) share their base's row."""

_MADE: dict[str, sympy.Symbol] = {}


def sym(name: str) -> sympy.Symbol:
    """Return the one symbol of this name.

    Raises
    ------
    KeyError
        If the name (or its base, for ``s_1``) is not in `TABLE`.

    Examples
    --------
    >>> sym("d") is sym("d")
    True
    >>> sym("d").is_positive
    True
    """
    if name not in _MADE:
        base, _, index = name.partition("_")
        if base not in TABLE or (index and not index.isdigit()):
            raise KeyError(f"symbol {name!r} is not in the table")
        # Only sizes that may be zero (past tokens, merged embeddings ...) are nonnegative.
        _MADE[name] = (
            sympy.Symbol(name, nonnegative=True)
            if base in _MAY_BE_ZERO
            else (sympy.Symbol(name, positive=True))
        )
    return _MADE[name]


_MAY_BE_ZERO = frozenset(
    {"p", "v", "V", "I", "Uv", "Ev", "o", "Lw", "x", "xc", "kc", "jr", "sd", "vl"}
)


def indexed(name: str, index: int, of: int) -> sympy.Symbol:
    """Return symbol `name` of group `index` when there are `of` groups.

    A single group keeps the plain name, so that common formulas read plainly.

    Examples
    --------
    >>> indexed("s", 0, 1), indexed("s", 1, 3)
    (s, s_1)
    """
    return sym(name) if of == 1 else sym(f"{name}_{index}")


def info(symbol: sympy.Symbol) -> SymbolInfo:
    """Return the table row of a symbol.

    Examples
    --------
    >>> info(sym("s_1")).unit
    'tokens'
    """
    return TABLE[symbol.name.partition("_")[0]]
