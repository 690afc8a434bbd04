"""Docstrings of this project as reStructuredText, for the reference.

The house style is plain text: a paragraph `name: what it is, with its unit` for an argument or a
field, its further lines indented. Each becomes an entry of a list; all else stays as it is, with
what reStructuredText would read as markup taken literally.
"""

import re

_ENTRY = re.compile(r"(?P<names>[a-z_]+(?:, [a-z_]+)*): (?P<text>\S.*)")
_MARKUP = re.compile(r"[*|@]|_(?=\W|$)")
_KEPT = re.compile(r"(`[^`]*`|(?<!\w)\*\w[^*]*\w\*(?!\w))")


def as_restructured_text(_app, _what, _name, _object, _options, lines):
    """Change the lines in place, as Sphinx's event `autodoc-process-docstring` wants it."""
    lines[:] = restructured(lines)


def restructured(lines):
    """The lines of a docstring, without common indentation, as reStructuredText."""
    found, entry = [], False
    for line in lines:
        text = line.strip()
        named = _ENTRY.fullmatch(line)
        if named:
            names = ", ".join(f"**{name}**" for name in named["names"].split(", "))
            found += ["", f"- {names}: {_literal(named['text'])}"]
        elif not text:
            found.append("")
        elif entry and _goes_on(line, found):
            found.append(f"  {_literal(text)}")
        else:
            found += ([""] if entry else []) + [_literal(text)]
        entry = bool(named) or (entry and found[-1].startswith("  "))
    return [*found, ""]


def _goes_on(line, found):
    """Whether a line goes on with the entry above: it is indented, or the entry has not ended."""
    return line.startswith(" ") or not found[-1].rstrip().endswith((".", ";"))


def _literal(text):
    """Text in which only `code` and *emphasis* are markup."""
    parts = _KEPT.split(text)
    return "".join(
        part if number % 2 else _MARKUP.sub(lambda found: "\\" + found[0], part)
        for number, part in enumerate(parts)
    )
