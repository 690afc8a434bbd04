"""Whether a verdict passes as a test: one rule for planted models, pinned claims, and others."""

from __future__ import annotations

from typing import Literal

from kv_claims.pins.check import Pinned
from kv_claims.study.expectation import Expectation

Outcome = tuple[Literal["pass", "skip", "fail"], str]


def outcome(
    word: str,
    reason: str,
    expected: Expectation | None,
    pinned: Pinned | None = None,
    *,
    strict: bool,
) -> Outcome:
    """How a verdict stands as a test result, and why.

    With an expectation the verdict must equal it (an invalid one for the expected reason). With a
    pin nothing may have moved. Without either, and with a pin of another budget: supported passes,
    refuted and invalid fail. Inconclusive is a skip that says so, unless it moved, and so are
    numbers of which it is undecided whether they moved; with `strict` both fail, and invalid does.
    """
    if pinned is not None and pinned.word == "moved":
        return "fail", f"moved from its pin in {pinned.file}: {'; '.join(pinned.changes)}"
    if word == "inconclusive":
        return ("fail" if strict else "skip"), f"inconclusive: {reason}"
    if word == "invalid" and strict:
        return "fail", f"invalid: {reason}"
    if pinned is not None and pinned.word == "undecided":
        told = f"{word}; whether it moved from its pin is undecided: {'; '.join(pinned.notes)}"
        return ("fail" if strict else "skip"), told
    if pinned is not None and pinned.word != "not compared":
        return "pass", f"{word}, as pinned: {reason}"
    if expected is None:
        return ("pass" if word == "supported" else "fail"), f"{word}: {reason}"
    # The reason must start so: an instrument that fails as well is not what was expected.
    same = word == expected.word and (word != "invalid" or reason.startswith(expected.because))
    unknown = expected.unless is not None and reason.startswith(expected.unless)
    if same or (word == "invalid" and unknown):
        return "pass", f"{word}, as expected: {reason}"
    return "fail", (
        f"{word} ({reason}), but the truth of the planted model makes it "
        f"{expected.word} ({expected.because})"
    )
