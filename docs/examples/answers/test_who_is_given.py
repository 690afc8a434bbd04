"""Where is it that a model finds whom a thing is given to? Claims on answers, as an example.

    pytest docs/examples/answers --model smollm2 --task claims/tasks/who_is_given.yaml

Of each pair the source's answer is a name and the base's another: `logit_diff` says which of the
two is nearer, `accuracy` whether it is the source's. Nothing is generated.
The claim is on what is *carried*: a difference of two answers moves half-way when the base's trace
is merely wiped.
"""

from __future__ import annotations

import pytest

from kv_claims import Patch, Region, claim
from kv_claims.claims.claim import Part
from kv_claims.study.study import ModelStudy

pytestmark = pytest.mark.embedded()


@claim(
    "the-name-that-acts-is-read-late",
    says="Past two thirds of the depth, the stream at the last token holds most of the answer.",
    cites="an example of docs/how-to/own-task.md",
    carried=Region(low=0.5),
    given=[Part.gap("logit_diff", Region(low=1.0))],
    outcome="logit_diff",
)
@pytest.mark.parametrize("layers", ["12/32", "24/32"])
def test_the_name_that_acts_is_read_late(study: ModelStudy, layers: str) -> None:
    study.judge(Patch("residual", layers=layers, positions="last(1)"))


@claim(
    "the-model-knows-who",
    says="The model names the person that its own text asks for, and seldom the other one.",
    cites="an example of docs/how-to/own-task.md",
    gap=Region(low=0.5),
    outcome="accuracy",
)
def test_the_model_knows_who(study: ModelStudy) -> None:
    study.judge()
