"""From specs and a compression plan to the pieces of a program."""

from costmodel.assembly.language import CacheGroup, language_piece
from costmodel.assembly.piece import Piece
from costmodel.assembly.vision import executed_layers, vision_piece

__all__ = ["CacheGroup", "Piece", "executed_layers", "language_piece", "vision_piece"]
