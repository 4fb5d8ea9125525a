"""Thrift's compact protocol, as far as the footer of a parquet file needs it.

Values are kept with their types, so that what is read can be written again unchanged, fields
this module knows nothing of included.

References
----------
Apache Thrift, "Thrift Compact protocol encoding",
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from typing import Any

from costmodel.errors import SpecError

__all__ = ["BINARY", "I64", "STRUCT", "Struct", "read_struct", "write_struct"]

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
_INTEGERS = (I16, I32, I64)

Struct = dict[int, tuple[int, Any]]
"""Type and value by number of the field; of a list, the type of its items and the items."""


def read_struct(data: bytes) -> Struct:
    """Read one struct from its encoding.

    Raises
    ------
    SpecError
        If it is none, or has a type that footers do not have.

    Examples
    --------
    >>> read_struct(write_struct({1: (I64, -3), 20: (BINARY, b"x")}))
    {1: (6, -3), 20: (8, b'x')}
    """
    try:
        return _Reader(data).struct()
    except IndexError:
        raise SpecError("thrift: the struct ends too early") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self) -> Struct:
        found: Struct = {}
        number = 0
        while head := self._byte():
            kind, delta = head & 15, head >> 4
            number = number + delta if delta else self._signed()
            found[number] = (kind, self._value(kind))
        return found

    def _value(self, kind: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in _INTEGERS:
            return self._signed()
        if kind == STRUCT:
            return self.struct()
        if kind == LIST:
            return self._list()
        if kind in (BYTE, DOUBLE, BINARY):
            return self._bytes({BYTE: 1, DOUBLE: 8}.get(kind) or self._unsigned())
        raise SpecError(f"thrift: type {kind} is not known in footers")

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        kind, size = head & 15, head >> 4
        if size == 15:
            size = self._unsigned()
        if kind in (TRUE, FALSE):
            return kind, [self._byte() == TRUE for _ in range(size)]
        return kind, [self._value(kind) for _ in range(size)]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise IndexError
        return self._data[self._at - size : self._at]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)


def write_struct(struct: Struct) -> bytes:
    """Return the encoding of a struct."""
    out = bytearray()
    _write_struct(struct, out)
    return bytes(out)


def _write_struct(struct: Struct, out: bytearray) -> None:
    before = 0
    for number, (kind, value) in sorted(struct.items()):
        if kind in (TRUE, FALSE):
            kind = TRUE if value else FALSE  # noqa: PLW2901 - the value is in the type
        delta = number - before
        if 0 < delta < 16:
            out.append(delta << 4 | kind)
        else:
            out.append(kind)
            _write_signed(number, out)
        if kind not in (TRUE, FALSE):
            _write_value(kind, value, out)
        before = number
    out.append(0)


def _write_value(kind: int, value: Any, out: bytearray) -> None:
    if kind in _INTEGERS:
        _write_signed(value, out)
    elif kind == STRUCT:
        _write_struct(value, out)
    elif kind == LIST:
        item, values = value
        if len(values) < 15:
            out.append(len(values) << 4 | item)
        else:
            out.append(15 << 4 | item)
            _write_unsigned(len(values), out)
        for one in values:
            if item in (TRUE, FALSE):
                out.append(TRUE if one else FALSE)
            else:
                _write_value(item, one, out)
    else:
        if kind == BINARY:
            _write_unsigned(len(value), out)
        out += value


def _write_signed(value: int, out: bytearray) -> None:
    _write_unsigned(value << 1 ^ value >> 63, out)


def _write_unsigned(value: int, out: bytearray) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
