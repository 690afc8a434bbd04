"""What a verdict should be: on a planted model it follows from the truth, never from a run.

The truth of a cell is its exact transfer and those of its controls. Whether a test then passes is
decided in one place, `outcome`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.claim import Claim
from harness.models.planted.catalog import N_LAYERS, Planted
from harness.models.planted.truth import Donor, true_transfer
from harness.run.arms import Arm
from harness.run.sampling_settings import Sampling
from harness.spec import Patch
from harness.tasks.task import Task


@dataclass(frozen=True)
class Expectation:
    """The word that the truth gives; with invalid, the one check that must fail."""

    word: str
    because: str
    transfer: float | None
    controls: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {
            "transfer": self.transfer,
            "controls": self.controls,
            "because": self.because,
            "source": "closed form, over the population of pairs",
        }


def expectation(
    planted: Planted,
    claim: Claim,
    patch: Patch,
    controls: Mapping[str, Arm],
    task: Task,
    sampling: Sampling,
) -> Expectation | None:
    """The verdict that follows from the truth of a planted model.

    None where the truth is not known: another scorer than the lexicon, greedy decoding, or a task
    that is not the model's own. A full swap is an instrument check and never a finding.
    """
    own_task = task.name == f"planted:{planted.name}"
    if task.scorer.name != "lexicon" or sampling.temperature <= 0 or not own_task:
        return None
    if patch.is_full_swap(N_LAYERS):
        return Expectation("invalid", "full-swap-is-the-donor", None, {})

    def transfer(of: Patch, donor: Donor) -> float:
        return true_transfer(
            planted,
            of,
            task,
            donor=donor,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
        )

    truth = transfer(patch, "source")
    if math.isnan(truth):
        return Expectation("invalid", "no-ceiling", None, {})
    of_controls = {
        name: transfer(arm.patch or patch, _donor(arm)) for name, arm in controls.items()
    }
    if truth not in claim.transfer:
        return Expectation("refuted", f"{truth:.4f} is outside the region", truth, of_controls)
    off = [name for name, found in of_controls.items() if abs(found) > claim.margin]
    if off and 0.0 not in claim.transfer:
        return Expectation("invalid", "not specific", truth, of_controls)
    return Expectation("supported", f"{truth:.4f} is inside the region", truth, of_controls)


def _donor(arm: Arm) -> Donor:
    return (
        "source"
        if arm.donor == "source"
        else "noise"
        if arm.donor == "noise"
        else ("unrelated-base")
    )


def outcome(
    word: str, reason: str, expected: Expectation | None, *, strict: bool
) -> tuple[Literal["pass", "skip", "fail"], str]:
    """How a verdict stands as a test result, and why.

    With an expectation the verdict must equal it (an invalid one for the expected reason).
    Without: supported passes, refuted and invalid fail. Inconclusive is a skip that says so; with
    `strict`, inconclusive and invalid always fail.
    """
    if word == "inconclusive":
        return ("fail" if strict else "skip"), f"inconclusive: {reason}"
    if word == "invalid" and strict:
        return "fail", f"invalid: {reason}"
    if expected is None:
        return ("pass" if word == "supported" else "fail"), f"{word}: {reason}"
    same = word == expected.word and (word != "invalid" or reason.startswith(expected.because))
    if same:
        return "pass", f"{word}, as expected: {reason}"
    return "fail", (
        f"{word} ({reason}), but the truth of the planted model makes it "
        f"{expected.word} ({expected.because})"
    )
