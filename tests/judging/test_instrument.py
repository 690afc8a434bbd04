"""Each instrument check is seen to fail: the defect goes into the real pipeline, not into a mock.

And the reverse: without the defect every check passes. The defects are in `defects.py`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kv_claims.claims.patch import Patch
from kv_claims.evidence.evidence import Evidence
from kv_claims.judging.checks import INSTRUMENT_CHECKS
from kv_claims.models.load import load_model
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.task import Prompt
from tests.judging.defects import (
    BEHAVIOR,
    CHECKS,
    CLAIM,
    DEFECTS,
    STUDIES,
    Study,
    failed,
    judged,
    judged_as,
    minimal_task,
)
from tests.models.architectures import tiny


@pytest.mark.parametrize("study", STUDIES)
def test_without_a_defect_every_check_passes(study: str) -> None:
    evidence = judged(study)
    assert failed(evidence) == set()
    made = {check["name"] for check in evidence.checks}
    assert made >= set(INSTRUMENT_CHECKS)
    assert ("likelihood-oracle" in made) is study.startswith("likelihood")


@pytest.mark.parametrize("study", ["splice", "several", "held", "likelihood"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nor_does_the_rounding_of_a_narrower_type_fail_one(study: str, dtype: torch.dtype) -> None:
    assert failed(judged(study, dtype)) == set()


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def detail(evidence: Evidence, name: str) -> str:
    return next(str(check["detail"]) for check in evidence.checks if check["name"] == name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "study", [study for study in STUDIES if study.startswith(("minimal", "same"))]
)
def test_pairs_that_differ_in_one_token_pass_in_every_type(study: str, dtype: torch.dtype) -> None:
    """Whatever the pasted numbers differ by: a write is counted by its bits."""
    evidence = judged(study, dtype)
    assert failed(evidence) == set()
    said = "what is written stood there already, an effect of exactly 0"
    patched = evidence.fired["patched"]
    assert patched["elements"] == patched["planned_elements"] > 0
    if study.startswith("minimal"):
        assert 0 < patched["changed"] <= patched["elements"]
        assert "numbers changed" not in detail(evidence, "hook-never-fired")
    known = {"same-start": 12, "same-start-in-prefill": 12, "same-end-first-layer": 0}
    if study in known:
        assert f"in every trial {said} (in {known[study]} the" in detail(
            evidence, "hook-never-fired"
        )
        assert "nothing to control for" in detail(evidence, "vacuous-control")
        assert patched["known_equal"] == known[study]
        assert patched["beyond_rounding"] == 0
    if study in ("same-end", "same-start-steps"):
        assert said not in detail(evidence, "hook-never-fired")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_large_number_does_not_hide_the_others(dtype: torch.dtype) -> None:
    """As trained models have them: beside it every difference is smaller than rounding may be."""
    model = tiny("qwen2", dtype)
    with torch.no_grad():
        for layer in model.network.model.layers:
            for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
                projection.bias[::8] = 400.0
    runner = Runner(model, minimal_task(), Sampling(6), Ledger())
    patch = Patch("v", "1", "last(6)")
    evidence = ModelStudy(runner, 12, n_seeds=1).judge(Cell.of(CLAIM, "cell", patch))[0]
    assert "hook-never-fired" not in failed(evidence)
    patched = evidence.fired["patched"]
    assert patched["changed"] > 0
    assert (patched["beyond_rounding"] == 0) is (dtype in (torch.bfloat16, torch.float16))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("positions", ["last(16)", "first(8)"])
def test_so_do_those_of_a_planted_model(dtype: str, positions: str) -> None:
    """One word of a planted prompt, replaced by one that brings another behavior."""
    model = load_model("planted:stored-at-layer", device="cpu", dtype=dtype)
    whole = planted_task(CATALOG["stored-at-layer"], n_pairs=12)
    bases = whole.bases[:12]
    sources = []
    for number, (base, source) in enumerate(zip(bases, whole.sources[:12], strict=True)):
        words = base.text.split()
        at = 9 + number % 4 if positions == "first(8)" else len(words) - 2 - number % 12
        words[at] = source.text.split()[-3]
        sources.append(Prompt(f"s{number}", f"s{number}", " ".join(words)))
    task = replace(whole, sources=tuple(sources), bases=bases, pairing="one-to-one")
    runner = Runner(model, task, Sampling(6), Ledger())
    patch = Patch("kv", "12", positions)
    evidence = ModelStudy(runner, 12, n_seeds=1).judge(Cell.of(BEHAVIOR, "cell", patch))[0]
    assert failed(evidence) == set()
    patched = evidence.fired["patched"]
    assert patched["elements"] == patched["planned_elements"] > 0
    assert (patched["known_equal"], patched["beyond_rounding"] == 0) == (
        (12, True) if positions == "first(8)" else (0, False)
    )


def test_a_control_that_pastes_what_the_patch_does_stays_vacuous() -> None:
    """By the tokens: the unrelated base has the source's first eight, and the base has not."""
    task = minimal_task(9)
    start = task.sources[0].text.split()[:8]
    other = ["1", "2", "3", "4", "5", "6", "7", "8"]

    def begun(prompt: Prompt, first: list[str]) -> Prompt:
        return replace(prompt, text=" ".join([*first, *prompt.text.split()[8:]]))

    shared = replace(
        task,
        sources=tuple(begun(one, start) for one in task.sources),
        bases=(
            begun(task.bases[0], other),
            *(begun(one, start if i % 2 else other) for i, one in enumerate(task.bases[1:], 1)),
        ),
    )
    patch = (Patch("kv", "1", "first(8)"),)
    evidence = judged_as(Study(CLAIM, patch, task=lambda: shared))
    assert failed(evidence) == {"vacuous-control"}
    assert "unrelated-base: " in detail(evidence, "vacuous-control")
    # Where base and source begin alike, the patch itself does nothing, and nothing is vacuous.
    assert evidence.fired["patched"]["known_equal"] == 6


def test_every_check_has_a_defect_here() -> None:
    assert {defect.check for defect in DEFECTS.values()} == CHECKS


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_makes_the_verdict_invalid_by_name(
    defect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, study, inject = DEFECTS[defect]
    inject(monkeypatch)
    evidence = judged(study)
    assert check in failed(evidence)
    assert evidence.verdict == "invalid"
    assert check in evidence.reason
