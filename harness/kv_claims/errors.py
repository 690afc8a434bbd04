"""The one error that users meet for bad input.

Its message always says what was given, what was expected, and where. It is raised before a
model runs, and raising it never touches what is already recorded.
"""

from __future__ import annotations

from kv_claims.plain import line_of


class UsageError(ValueError):
    """Something that the user gave cannot be used as given.

    Its text is one line with nothing hidden in it, whatever file or name it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(line_of(message))


class NoSuchCellError(UsageError):
    """What was given is right in itself, and other models have it: this one does not."""


class UnwritableError(UsageError):
    """Nothing more can be kept, as of a full disk: whatever else a run does would be lost."""
