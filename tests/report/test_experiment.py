"""Texts that speak of one experiment stand where its claims ran, and nowhere else."""

from __future__ import annotations

import re

import pytest

from kv_claims.claims.claim import claim_of
from kv_claims.evidence.stored import load_run
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.write import write_reports
from kv_claims.report.view.experiment import SEED, WHERE, experiment_of, title_of
from kv_claims.report.view.report import report_view

OF_THE_SEED = re.compile(r"\bthe seed\b|the seed's|\bmode lives\b|\bR_V\b", re.IGNORECASE)


def pages(state: ClaimsSession) -> dict[str, str]:
    write_reports(state)
    out = state.settings.out
    return {name: (out / name).read_text("utf-8") for name in ("report.md", "report.html")}


def test_a_report_of_a_strangers_claims_has_none_of_the_seeds_texts(
    every_kind: ClaimsSession,
) -> None:
    for name, page in pages(every_kind).items():
        assert not OF_THE_SEED.findall(page), name
        assert WHERE in page
        # The claims patch all of these, and the page says no more of what they are about.
        about = "Claims about patching the KV cache, projections and the residual stream"
        assert page.count(about) == (1 if name == "report.md" else 2)


def test_a_report_of_the_seeds_claims_has_them(state: ClaimsSession) -> None:
    for one in state.evidence:
        one["cites"] = f"{SEED.cites} (December 12, 2024), Conclusion"
    found = pages(state)
    for page in found.values():
        assert SEED.where in page
        assert WHERE not in page
        assert SEED.name in page
        assert "Claims about patching the KV cache" in page
    assert "| RESIDUAL |" in found["report.md"]
    assert "the methods of the seed experiment" in found["report.html"]


def test_a_strangers_panels_are_all_patches_though_one_is_a_method_of_the_seed(
    every_kind: ClaimsSession,
) -> None:
    write_reports(every_kind)
    stored = load_run(every_kind.settings.out)
    (of_ours,) = {len(one.panels) for one in report_view(stored).models[0].geometry}
    for one in stored.evidence.values():
        one["cites"] = SEED.cites
    (of_the_seed,) = {len(one.panels) for one in report_view(stored).models[0].geometry}
    assert of_ours > of_the_seed == 1


@pytest.mark.parametrize("patched", [True, False])
def test_a_title_without_a_patch_names_none(state: ClaimsSession, patched: bool) -> None:
    if not patched:
        state.evidence[:] = [{**one, "patch": None} for one in state.evidence]
    wanted = "Claims about patching the KV cache" if patched else "Claims and verdicts"
    assert title_of(state.evidence) == wanted


def test_the_claims_that_are_shipped_cite_the_seed_as_it_is_known_by() -> None:
    """Else their reports would lose its texts without a word."""
    from claims import test_kv_cache

    shipped = [claim_of(one) for one in vars(test_kv_cache).values()]
    cited = [{"cites": one.cites} for one in shipped if one is not None]
    assert cited
    assert all(experiment_of([one]) is SEED for one in cited)
    assert experiment_of([{"cites": f"See {SEED.cites}"}]) is None
