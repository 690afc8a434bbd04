"""The one error that users meet for bad input.

Its message always says what was given, what was expected, and where. It is raised before a
model runs, and raising it never touches what is already recorded.
"""

from __future__ import annotations


class UsageError(ValueError):
    """Something that the user gave cannot be used as given."""


class UnwritableError(UsageError):
    """Nothing more can be kept, as of a full disk: whatever else a run does would be lost."""
