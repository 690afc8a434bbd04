"""The error that says where the truth of a planted model ends."""

from __future__ import annotations

from kv_claims.errors import UsageError


class UnknownTruth(UsageError):  # noqa: N818 - it is no mistake of anyone's
    """What is asked has a true value, but none that is computed here: never guess it."""
