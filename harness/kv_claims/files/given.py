"""YAML that somebody gives: plain types, read within bounds (`kv_claims.files.reading` has JSON).

Promises: whatever stands in a file, reading it ends soon and takes memory in proportion to the
file, and what is wrong with it is one UsageError that begins with what the file is and its path.
No text that is returned has half a character (a lone surrogate), which could not be written again.
Does not: say what should stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from kv_claims.errors import UsageError
from kv_claims.files.reading import read_text

LARGEST_YAML = 8 * 2**20
"""Bytes: some 10,000 prompts of a paragraph each. The parser reads about 1 MiB a second."""
DEEPEST = 50
"""Lists and mappings inside each other."""
MOST_KEYS = 10_000
"""Keys of one YAML mapping: they may have been chosen to have one hash, and are then compared."""
LONGEST_NUMBER = 100
"""Characters of a number in YAML: long ones to base 60 take quadratic time."""

_HALF = re.compile("[\ud800-\udfff]")


def read_yaml(path: Path, what: str, largest: int = LARGEST_YAML) -> Any:
    """The content of a YAML file, of plain types only.

    A character that stands as an escaped pair, as in JSON, is one character. Raises UsageError as
    `read_text` does, and for what is not YAML, has tags, aliases, a key twice, or is too deep.
    """
    where = f"{what} {path}"
    text = read_text(path, where, most=largest)
    try:
        return yaml.load(text, Loader=_BoundedLoader)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        # PyYAML lets a date that is none, or a number that is none, out as a plain ValueError.
        raise UsageError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


_TOO_DEEP = f"lists and mappings more than {DEEPEST} deep, expected at most that"


class _BoundedLoader(yaml.SafeLoader):
    """SafeLoader within bounds, which refuses a key given twice: YAML forbids it, PyYAML does not.

    Of aliases a few lines make billions of things, so there are none.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refused("an alias (*), expected what it stands for", event)
        if getattr(event, "tag", None) is not None:
            raise _refused(f"a tag ({event.tag:.60}), expected plain values", event)
        if self._depth > DEEPEST:
            raise _refused(_TOO_DEEP, event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if _HALF.search(node.value):
            whole = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            if _HALF.search(whole):
                raise _refused("half a character, which is no text", node)
            node.value = whole
        is_number = node.tag.rpartition(":")[2] in ("int", "float")
        if is_number and len(node.value) > LONGEST_NUMBER:
            raise _refused(f"a number of {len(node.value)} characters", node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if len(node.value) > MOST_KEYS:
            raise _refused(f"a mapping of {len(node.value)} keys, at most {MOST_KEYS}", node)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refused(f"{key!r:.60} cannot be a key", key_node)
            if key in seen:
                raise _refused(f"key {key!r:.60} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _refused(why: str, at: Any) -> yaml.constructor.ConstructorError:
    """An error at the place where an event or a node begins."""
    return yaml.constructor.ConstructorError(None, None, why, at.start_mark)
