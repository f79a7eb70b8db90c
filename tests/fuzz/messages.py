"""Any value of any wire message, from its Struct's own annotations: a message that is added to the wire is fuzzed
without being told.

Where a random value would only be refused as unknown, a vocabulary says which values mean something: a device that
there is, a link that was signed. What is of a kind that is not known here raises: nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Raw, UnsetType

from fastchat.errors import FastChatError

INTEGERS = (-1, 0, 1, 2, 63, 64, 2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 5e-324, 1e-9, 75.0, 3600.0, 1e9, 1e308, -1e308)
TEXTS = ("", "a", "\0", "\n", '"', "\\", "é", "e\u0301", "\u2028", "\ufeff", "\u202e", "\U0001f600", "'; --", "%s", "|")
RAW = (
    b'""', b'"AQID"', b'"AQI"', b'"A==="', b'"AAA="', b'" AQID"', b'"\\u0041QID"', b'"\xc3\xa9"', b"null", b"0", b"{}",
    b"[[]]", b"[" * 50 + b"]" * 50,
)  # fmt: skip

Known = Mapping[Any, Sequence[Any]]
"""By annotation (`wire.DeviceId`), Struct (`wire.Signed`) or (Struct, field): values that mean something."""


def kinds(union: Any) -> tuple[type[msgspec.Struct], ...]:
    """The Structs of a union."""
    found: tuple[type[msgspec.Struct], ...] = get_args(union)
    return found


def codes() -> list[str]:
    """Every code that an error may have on the wire."""

    def below(kind: type[FastChatError]) -> list[str]:
        return [kind.code, *(code for child in kind.__subclasses__() for code in below(child))]

    return sorted(set(below(FastChatError)))


class Values:
    """Strategies for values of annotations, with a vocabulary. Each is made once."""

    def __init__(self, known: Known | None = None) -> None:
        self._known = dict(known or {})
        self._made: dict[Any, st.SearchStrategy[Any]] = {}

    def message(self, union: Any) -> st.SearchStrategy[Any]:
        """Any message of a union of Structs, each kind equally often."""
        return st.one_of([self.of(kind) for kind in kinds(union)])

    def of(self, hint: Any) -> st.SearchStrategy[Any]:
        """Any value that `hint` allows, boundaries more often than chance has them."""
        if hint not in self._made:
            known = self._known.get(hint)
            free = self._free(hint)
            # What means something is drawn twice as often: most of the ways in begin with it.
            self._made[hint] = st.one_of(st.sampled_from(known), st.sampled_from(known), free) if known else free
        return self._made[hint]

    def _free(self, hint: Any) -> st.SearchStrategy[Any]:
        meta = Meta()
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            meta = next(note for note in notes if isinstance(note, Meta))
        origin = get_origin(hint)
        if origin in (Union, UnionType):
            return st.one_of([self.of(one) for one in get_args(hint)])
        if origin is tuple and get_args(hint)[1:] == (Ellipsis,):
            return self._tuple(self.of(get_args(hint)[0]), meta)
        if origin is tuple:
            return st.tuples(*(self.of(one) for one in get_args(hint)))
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self._struct(hint)
        if hint not in _SIMPLE:
            raise TypeError(f"no values are known here for {hint!r}: say in {__name__} how to make some")
        simple: st.SearchStrategy[Any] = _SIMPLE[hint](meta)
        return simple

    def _struct(self, kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
        hints = get_type_hints(kind, include_extras=True)
        fields = {}
        for field in msgspec.structs.fields(kind):
            fields[field.name] = self.of(hints[field.name])
            known = self._known.get((kind, field.name))
            if known:
                fields[field.name] = st.sampled_from(known) | fields[field.name]
        return st.builds(kind, **fields)

    @staticmethod
    def _tuple(items: st.SearchStrategy[Any], meta: Meta) -> st.SearchStrategy[Any]:
        least, most = meta.min_length or 0, meta.max_length
        few = st.lists(items, min_size=least, max_size=min(most or 4, max(4, least))).map(tuple)
        # As many as there may be, all the same: cheap to draw.
        return few | st.builds(lambda item: (item,) * (most or 120), items)


def _int(meta: Meta) -> st.SearchStrategy[int]:
    low, high = meta.ge, meta.le
    edges = {*INTEGERS, *(at + by for at in (low, high) if at is not None for by in (-1, 0, 1))}
    fit = sorted(int(edge) for edge in edges if (low is None or edge >= low) and (high is None or edge <= high))
    least = None if low is None else int(low)
    small = st.integers(least or 0, min((least or 0) + 9, int(high if high is not None else 2**63)))
    return small | st.sampled_from(fit) | st.integers(least, None if high is None else int(high))


def _float(meta: Meta) -> st.SearchStrategy[float]:
    return st.sampled_from(FLOATS) | st.floats(allow_nan=False, allow_infinity=False)


def _str(meta: Meta) -> st.SearchStrategy[str]:
    if meta.pattern is not None:
        return st.from_regex(meta.pattern, fullmatch=True)
    least, most = meta.min_length or 0, meta.max_length
    short = st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=min(most or 20, 20))
    edges = [text for text in TEXTS if len(text) >= least] + ["x" * (most or 5000), "\U0001f600" * (most or 2000)]
    return short | st.sampled_from(edges)


def _bytes(meta: Meta) -> st.SearchStrategy[bytes]:
    least, most = meta.min_length or 0, meta.max_length
    short = st.binary(min_size=least, max_size=max(least, min(most or 80, 80)))
    return short | st.sampled_from([bytes(least), b"\xff" * (most if most is not None else 3000)])


def _raw(meta: Meta) -> st.SearchStrategy[Raw]:
    body = st.binary(max_size=300).map(msgspec.json.encode)
    return (st.sampled_from(RAW) | body | st.text(max_size=20).map(msgspec.json.encode)).map(Raw)


_SIMPLE: dict[Any, Any] = {
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
    Raw: _raw,
    bool: lambda meta: st.booleans(),
    NoneType: lambda meta: st.none(),
    UnsetType: lambda meta: st.just(UNSET),
}
