"""The options of pytest on claims: `--claims-X` each, so that nothing of a project's own collides.

Whoever wants them short (`--model`, `--task`) names `kv_claims.plugin.short_options` beside the
plugin. What options become is in `kv_claims.plugin.asked`. Imports nothing that takes time.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any, NamedTuple

import pytest

from kv_claims.errors import UsageError
from kv_claims.plugin.profiles import PROFILES, PROTOCOLS

_GROUP = "claims", "claims about patching the KV cache"


class Option(NamedTuple):
    """One option: its name without `--claims-`, and what argparse is told of it.

    short: whether it has a form without the prefix. to: the name that its value is kept under,
    where that is not its own.
    """

    name: str
    told: dict[str, Any]
    short: bool = True
    to: str = ""

    @property
    def long_form(self) -> str:
        return f"--claims-{self.name}"

    @property
    def short_form(self) -> str:
        return f"--{self.name}"

    @property
    def dest(self) -> str:
        """Where its value is found in `config.option`, whichever form was given."""
        return "claims_" + (self.to or self.name).replace("-", "_")

    @property
    def short_dest(self) -> str:
        """Where the short form's value waits until `merge_forms`."""
        return f"short_{self.dest}"


OPTIONS = (
    Option(
        "model",
        {
            "action": "append",
            "metavar": "NAME",
            "help": "planted:NAME, mini, smollm2, a folder, a .gguf file, or a hub id; repeatable "
            "(ini: claims_models)",
        },
    ),
    Option("revision", {"help": "revision of a hub id"}),
    Option("device", {"help": "cpu, cuda, cuda:N (default: a GPU if there is one)"}),
    Option("dtype", {"help": "float64, float32, bfloat16 or float16"}),
    Option(
        "task", {"metavar": "FILE", "help": "task file for models not planted (ini: claims_task)"}
    ),
    Option(
        "chat",
        {
            "action": "store_true",
            "default": None,
            "help": "send each text as a user's message, by the model's chat template",
        },
    ),
    Option("pairs", {"type": int, "metavar": "N", "help": "pairs to run, from the first"}),
    Option("seeds", {"type": int, "metavar": "N", "help": "sampling seeds, of each pair"}),
    Option("max-new-tokens", {"type": int, "metavar": "N"}),
    Option("temperature", {"type": float, "metavar": "X", "help": "0.7; 0: greedy"}),
    Option("batch-size", {"metavar": "N|auto", "help": "rows decoded together"}),
    Option("profile", {"choices": sorted(PROFILES)}, short=False),
    Option(
        "protocol",
        {
            "choices": PROTOCOLS,
            "help": "published: no claims, but the seed's procedure with its defects, one less at "
            "a time",
        },
    ),
    Option(
        "out",
        {"metavar": "DIR", "help": "default reports/latest (ini: claims_out)"},
        short=False,
    ),
    Option(
        "replay",
        {
            "metavar": "DIR|YAML",
            "help": "judge stored trials again, or a published table (docs/replay.md); no model "
            "is run",
        },
        short=False,
    ),
    Option(
        "dry-run",
        {
            "action": "store_true",
            "help": "collect the cells, and say what would be run, or what a table is read as",
        },
        short=False,
    ),
    Option(
        "strict",
        {"action": "store_true", "help": "inconclusive and invalid verdicts fail"},
        short=False,
    ),
    Option(
        "update",
        {
            "action": "store_true",
            "help": "write what was found to claims/pins (ini: claims_pins), and show what that "
            "changes",
        },
        short=False,
    ),
    Option(
        "sign",
        {
            "metavar": "KEY",
            "help": "sign the evidence by an Ed25519 key in a PEM file (docs/report.md)",
        },
        short=False,
    ),
    Option(
        "allow-code",
        {
            "action": "store_true",
            "help": "import a scorer in Python that a stored run, a table's description or a "
            "model's folder names (docs/how-to/own-task.md)",
        },
        short=False,
    ),
    Option("resume", {"action": "store_true", "default": None}),
    Option(
        "no-resume",
        {
            "action": "store_false",
            "default": None,
            "help": "move earlier trials aside and run all again",
        },
        to="resume",
    ),
)


def add_long_forms(parser: pytest.Parser) -> None:
    """Add every option as `--claims-X`, in a group of their own."""
    add = parser.getgroup(*_GROUP).addoption
    for option in OPTIONS:
        add(option.long_form, dest=option.dest, **option.told)


def add_short_forms(parser: pytest.Parser) -> None:
    """Add `--X` for those that have it."""
    add = parser.getgroup(*_GROUP).addoption
    for option in OPTIONS:
        if option.short:
            told = {**option.told, "help": f"the same as {option.long_form}"}
            add(option.short_form, dest=option.short_dest, **told)


def merge_forms(given: Namespace) -> None:
    """Keep what was given in the short form under the long form's name.

    Raises UsageError where both forms were given, with different values.
    """
    for option in OPTIONS:
        short, long = getattr(given, option.short_dest, None), getattr(given, option.dest)
        if short is None:
            continue
        if long is not None and long != short:
            raise UsageError(
                f"{_spelled(option, short, is_short=True)} and "
                f"{_spelled(option, long, is_short=False)}: two forms of one option, expected one"
            )
        setattr(given, option.dest, short)


def is_any_given(given: Namespace) -> bool:
    """Whether any of our options was given."""
    values = (getattr(given, option.dest) for option in OPTIONS)
    return given.claims_resume is False or any(
        value is not None and value is not False for value in values
    )


def _spelled(option: Option, value: Any, *, is_short: bool) -> str:
    """As it was typed, value included."""
    # Two options may share a place: the one that turns it off comes last.
    of_it = [one for one in OPTIONS if one.dest == option.dest]
    named = of_it[-1 if value is False else 0]
    form = named.short_form if is_short else named.long_form
    if isinstance(value, bool):
        return form
    return " ".join(f"{form} {one}" for one in (value if isinstance(value, list) else [value]))
