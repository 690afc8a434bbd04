"""Damage as data: what may happen to the bytes of a file, and to what stands in JSON or YAML.

Every mutator takes a generator of its own and what is whole, and gives a damaged copy. The same
seed gives the same damage.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

Bytes = Callable[[Random, bytes], bytes]
Content = Callable[[Random, Any], Any]
Path = tuple[str | int, ...]


def _flip(luck: Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(luck.choice((1, 1, 8, 64))):
        found[luck.randrange(len(found))] ^= 1 << luck.randrange(8)
    return bytes(found)


def _overwritten(luck: Random, data: bytes) -> bytes:
    at, size = luck.randrange(len(data)), luck.choice((1, 4, 64))
    return data[:at] + luck.randbytes(size) + data[at + size :]


def _cut_out(luck: Random, data: bytes) -> bytes:
    at = luck.randrange(len(data))
    return data[:at] + data[at + luck.choice((1, 10, 500)) :]


def _doubled(luck: Random, data: bytes) -> bytes:
    at = luck.randrange(len(data))
    end = at + luck.choice((1, 20, 500))
    return data[:end] + data[at:end] + data[end:]


BYTES: Mapping[str, Bytes] = {
    "flip": _flip,
    "overwrite": _overwritten,
    "truncate": lambda luck, data: data[: luck.randrange(len(data))],
    "cut": _cut_out,
    "double": _doubled,
    "empty": lambda _luck, _data: b"",
    "byte-order-mark": lambda _luck, data: b"\xef\xbb\xbf" + data,
    "utf-16": lambda _luck, data: data.decode("utf-8", "replace").encode("utf-16"),
    "latin-1": lambda luck, data: _put(luck, data, b"\xe9\xff"),
    "nul": lambda luck, data: _put(luck, data, b"\0"),
    "nested": lambda _luck, _data: b"[" * 10_000,
    "nested-whole": lambda _luck, data: b'{"a":' * 5_000 + data + b"}" * 5_000,
    "not-a-number": lambda luck, data: _number(luck, data, b"NaN"),
    "infinity": lambda luck, data: _number(luck, data, b"-Infinity"),
    "out-of-range": lambda luck, data: _number(luck, data, b"1e400"),
    "ten-thousand-digits": lambda luck, data: _number(luck, data, b"1" * 10_000),
    "half-a-character": lambda luck, data: _put(luck, data, b"\\ud800"),
    "key-twice": lambda luck, data: _key_twice(luck, data),
}


def _put(luck: Random, data: bytes, what: bytes) -> bytes:
    at = luck.randrange(len(data) + 1)
    return data[:at] + what + data[at:]


def _places(data: bytes, mark: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(mark, at)]


def _number(luck: Random, data: bytes, what: bytes) -> bytes:
    """In place of the digits behind some colon; elsewhere where there is none."""
    places = [at + 2 for at in _places(data, b": ") if data[at + 2 : at + 3].isdigit()]
    if not places:
        return _put(luck, data, what)
    at = end = luck.choice(places)
    while data[end : end + 1] in b"0123456789.e-" and end < len(data):
        end += 1
    return data[:at] + what + data[end:]


def _key_twice(luck: Random, data: bytes) -> bytes:
    """The first key of some object again, in front of it."""
    at = luck.choice(_places(data, b"{") or [0])
    end = data.find(b":", at)
    return data[: at + 1] + data[at + 1 : end] + b": 1, " + data[at + 1 :]


VALUES: Mapping[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "fraction": 0.5,
    "huge-int": 2**53 + 1,
    "int-beyond-floats": 10**400,
    "huge-float": 1e308,
    "tiny-float": 5e-324,
    "empty-text": "",
    "text": "x",
    "number-in-text": "1.5",
    "terminal": "\x1b[2J\x1b]0;x\x07",
    "turned-around": "\u202e\u0000\u2028",
    "markup": "<script>|`*_",
    "formula": "=1+1",
    "outside": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "with-nul": "a\0b",
    "long-text": "word " * 40_000,
    "empty-list": [],
    "list": ["x", None, 3],
    "many": [0] * 20_000,
    "empty-object": {},
    "object": {"x": {"y": [1]}},
}
"""What stands in another value's place."""


def _deep(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


def paths_of(content: Any, here: Path = ()) -> Iterator[Path]:
    """Places in JSON: keys and indices from the top."""
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for name, value in items:
        yield (*here, name)
        yield from paths_of(value, (*here, name))


def path_text(path: Path) -> str:
    return "$" + "".join(f"[{n}]" if isinstance(n, int) else f".{n}"[:40] for n in path)


class Places:
    """Places of a content, so that a field is as likely as any other, however often it stands."""

    def __init__(self, content: Any) -> None:
        self.content = content
        self._fields: dict[Path, list[Path]] = {}
        for path in paths_of(content):
            field = tuple("*" if isinstance(name, int) else name for name in path)
            self._fields.setdefault(field, []).append(path)

    def pick(self, luck: Random) -> Path:
        return luck.choice(self._fields[luck.choice(list(self._fields))])

    def mutated(self, luck: Random) -> tuple[str, Any]:
        """What was done, and the damaged copy."""
        path, content = self.pick(luck), copy.deepcopy(self.content)
        way, last = path[:-1], path[-1]
        holder = content
        for name in way:
            holder = holder[name]
        kind = luck.choice(("swap", "swap", "swap", "swap", "delete", "double", "rename", "deep"))
        if kind == "swap":
            name = luck.choice(list(VALUES))
            holder[last] = copy.deepcopy(VALUES[name])
            kind = f"swap for {name}"
        elif kind == "delete":
            del holder[last]
        elif kind == "double":
            if isinstance(holder, list):
                holder.insert(int(last), copy.deepcopy(holder[int(last)]))
            else:
                holder[f"{last} again"] = copy.deepcopy(holder[last])
        elif kind == "rename" and isinstance(holder, dict):
            holder[luck.choice(("", "x" * 10_000, "\x1b[2J", "schema"))] = holder.pop(last)
        else:
            holder[last] = _deep(luck.choice((3, 60, 400)))
            kind = "deep"
        return f"{kind} at {path_text(path)}", content


def json_bytes(content: Any) -> bytes:
    """JSON as it may be: numbers of any size."""
    return json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")
