"""kv-claims verify, and the keys that runs are signed with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from kv_claims.__main__ import main
from kv_claims.evidence.evidence import to_json
from kv_claims.evidence.folder import EVIDENCE_FILE, SIGNATURE_FILE
from kv_claims.evidence.hashes import content_sha
from kv_claims.evidence.signing import private_key, sign
from kv_claims.run.ledger import LIKELIHOODS, Ledger, Records
from kv_claims.run.likelihood import Likelihood

WHOLE = "whole: evidence.json, trials.parquet, trials.csv, report.html, report.md\n"


class Keys(NamedTuple):
    private: Path
    public: Path
    fingerprint: str


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    assert main(["key", str(tmp_path / "lab")]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{tmp_path}/lab.pem (keep it), {tmp_path}/lab.pub.pem (publish it): ")
    return Keys(tmp_path / "lab.pem", tmp_path / "lab.pub.pem", told.split()[-1])


@pytest.fixture
def copy(a_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(a_run, tmp_path / "copy"))


@pytest.fixture
def signed(copy: Path, keys: Keys) -> Path:
    sign_run(copy, keys.private)
    return copy


def sign_run(run: Path, key: Path) -> None:
    said = (run / EVIDENCE_FILE).read_bytes()
    (run / SIGNATURE_FILE).write_text(sign(said, private_key(key)))


def forge(run: Path) -> None:
    """Replace a score of the evidence, and make its hash again."""
    content = json.loads((run / EVIDENCE_FILE).read_text())
    content["evidence"][0]["means"]["patched"] = 99.0
    content["sha"] = content_sha(content)
    (run / EVIDENCE_FILE).write_text(to_json(content, indent=1))


def test_a_run_as_it_was_written_is_whole(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(copy)]) == 0
    assert capsys.readouterr().out == f"{WHOLE}not signed\n"


def test_what_was_edited_is_named_and_1(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "trials.csv").write_text("pair,arm\n")
    (copy / "report.html").write_text("<p>all supported</p>")
    assert main(["verify", str(copy)]) == 1
    said = capsys.readouterr().out
    assert said == "edited since the run: trials.csv, report.html\nnot signed\n"


def test_pages_that_were_made_again_are_no_edit(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by a version whose pages are other ones: here, whose hashes are."""
    content = json.loads((copy / EVIDENCE_FILE).read_text())
    content["files"]["report.html"] = "0" * 64
    content["sha"] = content_sha(content)
    (copy / EVIDENCE_FILE).write_text(to_json(content, indent=1))
    assert main(["verify", str(copy)]) == 0
    (copy / "report.html").write_text("<p>all supported</p>")
    assert main(["verify", str(copy)]) == 1
    assert "edited since the run: report.html\n" in capsys.readouterr().out


def test_likelihoods_in_the_ledger_are_covered(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy / "ledger" / LIKELIHOODS
    found = list(Records(Likelihood, folder, read_only=True).all())
    for path in folder.glob("*.jsonl"):
        path.unlink()
    # What others measure later in the same ledger is no edit.
    more = [one.__class__(**{**one.__dict__, "key": "k" + one.key, "study": "x"}) for one in found]
    Ledger(copy / "ledger").likelihoods.append([*reversed(found), *more])
    assert main(["verify", str(copy)]) == 0
    for path in folder.glob("*.jsonl"):
        path.unlink()
    better = [one.__class__(**{**one.__dict__, "of_source": 0.0}) for one in found]
    Ledger(copy / "ledger").likelihoods.append(better)
    assert main(["verify", str(copy)]) == 1
    assert "edited since the run: ledger/likelihoods\n" in capsys.readouterr().out


def test_a_broken_off_run_is_whole_and_says_so(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((copy / EVIDENCE_FILE).read_text())
    content["run"] |= {"complete": False, "cells": {"planned": 8, "judged": 2}}
    content["sha"] = content_sha(content)
    (copy / EVIDENCE_FILE).write_text(to_json(content, indent=1))
    main(["report", str(copy)])
    capsys.readouterr()
    assert main(["verify", str(copy)]) == 0
    assert capsys.readouterr().out == f"{WHOLE}incomplete: 2 of 8 cells\nnot signed\n"


def test_by_whom_a_run_is_signed(
    signed: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(signed)]) == 0
    by = f"signed by {keys.fingerprint}"
    assert capsys.readouterr().out == f"{WHOLE}{by} (a key that you did not name)\n"
    assert main(["verify", str(signed), "--key", str(keys.public)]) == 0
    assert capsys.readouterr().out == f"{WHOLE}{by} (the key you gave)\n"


def test_signed_by_another_is_1(
    copy: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["key", str(tmp_path / "forger")])
    other = capsys.readouterr().out.split()[-1]
    sign_run(copy, tmp_path / "forger.pem")
    assert main(["verify", str(copy), "--key", str(keys.public)]) == 1
    told = f"signed by {other}, not by the key you gave ({keys.fingerprint})\n"
    assert capsys.readouterr().out == WHOLE + told


def test_a_forger_who_makes_the_hashes_again_is_caught_by_the_signature_alone(
    signed: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(signed)
    assert main(["report", str(signed)]) == 0  # and the pages
    capsys.readouterr()
    assert main(["verify", str(signed)]) == 1
    told = f"the signature, by {keys.fingerprint}, is not of this evidence.json\n"
    assert capsys.readouterr().out == WHOLE + told
    (signed / SIGNATURE_FILE).unlink()
    assert main(["verify", str(signed)]) == 0  # nothing is left to show it
    assert main(["verify", str(signed), "--key", str(keys.public)]) == 1
    assert capsys.readouterr().out.endswith("not signed\n")


@pytest.mark.parametrize("what", ["no run", "no key", "no signature", "private key"])
def test_bad_usage_is_one_line_and_2(
    signed: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    given = [str(signed), "--key", str(keys.public)]
    if what == "no run":
        given[0] = str(tmp_path / "none")
    elif what == "no key":
        given[2] = str(tmp_path / "none.pem")
    elif what == "private key":
        given[2] = str(keys.private)
    else:
        (signed / SIGNATURE_FILE).write_text("{}")
    assert main(["verify", *given]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["key", str(tmp_path / "lab")]) == 2
    assert "lab.pem: cannot be made (File exists)" in capsys.readouterr().err


def test_making_a_report_again_leaves_a_signed_run_signed(
    signed: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in signed.iterdir() if path.is_file()}
    assert main(["report", str(signed)]) == 0
    assert {p.name: p.read_bytes() for p in signed.iterdir() if p.is_file()} == before
    assert main(["verify", str(signed), "--key", str(keys.public)]) == 0
    assert "the key you gave" in capsys.readouterr().out
