"""kv-claims report: the reports of a stored run, again."""

from __future__ import annotations

from pathlib import Path

import pytest

from kv_claims.__main__ import main
from kv_claims.models.load import LoadedModel
from tests.runs import edited_copy, make_run

REPORTS = ("report.html", "report.md")


@pytest.fixture(scope="module")
def run(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("a run") / "out", stored)


def test_it_renders_the_same_bytes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (run / name).read_bytes() for name in REPORTS}
    for name in REPORTS:
        (run / name).unlink()
    files = sorted(path.name for path in run.iterdir())
    assert main(["report", str(run)]) == 0
    assert {name: (run / name).read_bytes() for name in REPORTS} == before
    assert sorted(path.name for path in run.iterdir()) == sorted([*files, *REPORTS])
    assert capsys.readouterr().out == f"{run / 'report.html'}, report.md\n"


def test_figures_are_written_as_svg_and_pdf(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    for _ in range(2):
        assert main(["report", str(run), "--figures", str(folder)]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) >= 6
    assert [name for name in names if name.endswith(".svg")] == [
        name.replace(".pdf", ".svg") for name in names if name.endswith(".pdf")
    ]
    assert all(path.stat().st_size > 1000 for path in folder.iterdir())


@pytest.mark.parametrize("pinned", [{"word": "moved", "changes": ["verdict a -> <b>"]}, None])
def test_a_pin_is_shown(run: Path, tmp_path: Path, pinned: dict | None) -> None:
    def pin(content: dict) -> None:
        content["evidence"][0]["pinned"] = pinned
        content["evidence"][0]["verified"] = False

    copy = edited_copy(run, tmp_path / "copy", pin)
    assert main(["report", str(copy)]) == 0
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert ("moved from its pin" in page) == (pinned is not None)
    assert ("not as pinned: verdict a -&gt; &lt;b&gt;" in page) == (pinned is not None)
    assert page.count('<span class="flag">unverified</span>') == 2  # its row, and its why
    assert "1 verdict is unverified" in page
    flags = "(unverified, moved)" if pinned else "(unverified)"
    assert flags in (copy / "report.md").read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_one_line_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{tmp_path / 'evidence.json'}: cannot be read" in said
    assert "expected a folder that `pytest claims` wrote" in said
    assert not list(tmp_path.iterdir())


def test_figures_go_into_a_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "no" / "folder"):
        assert main(["report", str(run), "--figures", str(folder)]) == 2
        assert f"--figures {folder}: expected a folder" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["says", "near_ties", "texts"])
def test_evidence_of_another_version_is_one_line_and_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    def drop(content: dict) -> None:
        for one in content["evidence"]:
            del one[field]

    copy = edited_copy(run, tmp_path / "copy", drop)
    before = {name: (copy / name).read_bytes() for name in REPORTS}
    assert main(["report", str(copy)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert (
        f"{copy / 'evidence.json'}: $.evidence[0]: object missing required field {field}\n" in said
    )
    assert {name: (copy / name).read_bytes() for name in REPORTS} == before
