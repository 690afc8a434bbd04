"""The ledger: what was recorded comes back, and what cannot be read is named and kept."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kv_claims.errors import UnwritableError, UsageError
from kv_claims.run.answered import Answered
from kv_claims.run.ledger import (
    LIKELIHOODS,
    SELF_PATCHES,
    SET_ASIDE,
    Ledger,
    archive,
    check_writable,
)
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.self_write import SelfWrite
from kv_claims.run.trial import Trial

TRIAL = Trial(
    key="k0",
    study="study",
    model="a model",
    task="a task",
    pair="pair",
    pair_index=0,
    source="s0",
    base="b0",
    source_sha="0",
    base_sha="1",
    source_tokens_sha="2",
    base_tokens_sha="3",
    arm="base",
    seed=0,
    prompt_tokens=9,
    cached_slots=8,
    tokens=(4, 5, 6),
    text="a b c",
    stopped="length",
    planned=0,
    fired=0,
    planned_elements=0,
    elements=0,
    changed=0,
    beyond_rounding=0,
    least_changed=None,
    differs=None,
    known_equal=False,
    planned_steps=0,
    fired_steps=0,
    changed_steps=0,
    beyond_rounding_steps=0,
    margin=0.1 + 0.2,
    reference=None,
    reference_same_tokens=None,
    reference_difference=None,
    reference_scale=None,
    oracle_error=1e-300,
    oracle_keys_error=None,
    oracle_shift=None,
    geometry={"uncentred/prompt": [1.5, None, 2 / 3], "uncentred/generated": None},
)
LIKELIHOOD = Likelihood(
    key="l0",
    study="study",
    pair="pair",
    pair_index=0,
    arm="base",
    seed=0,
    of_source=-1.25,
    of_base=-0.1 - 0.2,
    kl=1e-300,
    source_tokens=7,
    base_tokens=9,
    oracle_error=None,
)
ANSWERED = Answered(
    key="a0",
    study="study",
    pair="pair",
    pair_index=0,
    arm="base",
    seed=0,
    behind="answers",
    texts_sha="0" * 64,
    has_foil=True,
    are_choices=False,
    logp=(-0.1 - 0.2, -1e-300),
    tokens=(1, 2),
    size=(4, 9),
    rank=1,
    oracle_error=None,
)
SELF_WRITE = SelfWrite(
    key="w0",
    study="study",
    pair="pair",
    pair_index=0,
    arm="source>kv@1/last(4)",
    fired=2,
    elements=64,
    changed=1,
    beyond_rounding=0,
    store_unchanged=True,
)
TRIALS = [replace(TRIAL, key=f"k{i}", seed=i, tokens=(i, i + 1)) for i in range(5)]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A ledger file of five trials."""
    Ledger(tmp_path).append(TRIALS)
    return tmp_path / "main.jsonl"


def corrupt(shard: Path, number: int) -> str:
    """Change one character of a line's text; the line as it is now."""
    lines = shard.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace('"text": "a b c"', '"text": "a b d"')
    shard.write_text("".join(lines), encoding="utf-8")
    return lines[number - 1].rstrip("\n")


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def named(ledger: Ledger) -> list[str]:
    return [str(bad) for bad in ledger.bad_lines]


def test_what_is_appended_is_read_again(tmp_path: Path, shard: Path) -> None:
    ledger = Ledger(tmp_path)
    assert list(ledger.trials()) == TRIALS
    assert len(ledger) == 5
    assert ledger.get("k3") == TRIALS[3]
    assert ledger.get("k9") is None
    assert not ledger.bad_lines
    assert files_in(tmp_path) == [shard.name]


@pytest.mark.parametrize(
    "text",
    ["", "two\nlines", "\u2028\x85\x1c", "# not a comment", 'quotes " \\ and 😀', "\x00\r\n"],
    ids=["empty", "newline", "separators", "hash", "quotes", "control"],
)
def test_any_text_survives(tmp_path: Path, text: str) -> None:
    Ledger(tmp_path).append([replace(TRIAL, text=text), TRIALS[1]])
    ledger = Ledger(tmp_path)
    assert [trial.text for trial in ledger.trials()] == [text, "a b c"]
    assert not ledger.bad_lines


def test_a_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Ledger(tmp_path).append([replace(TRIAL, margin=float("nan"))])


def test_appending_keeps_what_is_there(tmp_path: Path, shard: Path) -> None:
    before = shard.read_text()
    Ledger(tmp_path).append([replace(TRIAL, key="more")])
    assert shard.read_text().startswith(before)
    assert [trial.key for trial in Ledger(tmp_path).trials()] == [f"k{i}" for i in range(5)] + [
        "more"
    ]


def test_it_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(TRIALS[:1])
    assert len(Ledger(tmp_path)) == 1
    ledger.append(TRIALS[1:])
    assert len(Ledger(tmp_path)) == 5


def test_without_a_folder_trials_are_in_memory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger()
    ledger.append(TRIALS)
    assert list(ledger.trials()) == TRIALS
    assert not list(tmp_path.iterdir())


def test_all_shards_are_read_and_one_is_written(tmp_path: Path) -> None:
    Ledger(tmp_path, "gw0").append(TRIALS[:2])
    Ledger(tmp_path, "gw1").append(TRIALS[2:])
    ledger = Ledger(tmp_path, "gw1")
    assert len(ledger) == 5
    ledger.append([replace(TRIAL, key="more")])
    lines = {name: len((tmp_path / name).read_text().splitlines()) for name in files_in(tmp_path)}
    assert lines == {"gw0.jsonl": 2, "gw1.jsonl": 4}


@pytest.mark.parametrize("number", [1, 3, 5], ids=["first", "middle", "last"])
def test_a_corrupt_line_is_named_kept_and_costs_its_own_trial_only(
    tmp_path: Path, shard: Path, number: int
) -> None:
    line = corrupt(shard, number)
    ledger = Ledger(tmp_path)
    assert named(ledger) == [f"main.jsonl line {number}: its checksum does not match its content"]
    assert list(ledger.trials()) == TRIALS[: number - 1] + TRIALS[number:]
    assert (tmp_path / SET_ASIDE).read_text(encoding="utf-8") == f"# {named(ledger)[0]}\n{line}\n"


def test_a_corrupt_line_is_named_each_time_and_set_aside_once(tmp_path: Path, shard: Path) -> None:
    corrupt(shard, 2)
    first = Ledger(tmp_path)
    aside = (tmp_path / SET_ASIDE).read_text()
    first.append([TRIALS[1]])
    again = Ledger(tmp_path)
    assert named(again) == named(first)
    assert (tmp_path / SET_ASIDE).read_text() == aside
    assert {trial.key: trial for trial in again.trials()} == {t.key: t for t in TRIALS}


def test_a_line_that_was_cut_off_harms_no_other(tmp_path: Path, shard: Path) -> None:
    """A kill in the middle of a write: the next append begins a line of its own."""
    shard.write_bytes(shard.read_bytes()[:-20])
    ledger = Ledger(tmp_path)
    assert named(ledger) == ["main.jsonl line 5: its checksum does not match its content"]
    ledger.append(TRIALS[4:])
    again = Ledger(tmp_path)
    assert list(again.trials()) == TRIALS
    assert [bad.number for bad in again.bad_lines] == [5]


def test_a_line_that_was_cut_off_is_set_aside_once(tmp_path: Path, shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-20])
    ledger = Ledger(tmp_path)
    ledger.append(TRIALS[4:])
    assert named(Ledger(tmp_path)) == named(ledger)
    assert (tmp_path / SET_ASIDE).read_text().count("# main.jsonl line 5") == 1


def test_a_whole_last_line_without_its_end_counts(tmp_path: Path, shard: Path) -> None:
    """Its checksum shows that nothing is missing; the next append begins a line of its own."""
    shard.write_bytes(shard.read_bytes().rstrip(b"\n"))
    ledger = Ledger(tmp_path)
    assert list(ledger.trials()) == TRIALS
    assert not ledger.bad_lines
    ledger.append([replace(TRIALS[0], key="another")])
    assert len(Ledger(tmp_path)) == len(TRIALS) + 1


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "checksum"),
        ("garbage", "checksum"),
        ("0123456789abcdef {}", "checksum"),
        ("44136fa355b3678a {}", "are missing or unknown"),
        ("4f53cda18c2baa0c []", "Expected `object`, got `array`"),
    ],
    ids=["blank", "garbage", "wrong-sum", "no-fields", "list"],
)
def test_a_line_that_is_no_trial_is_named_with_the_reason(
    tmp_path: Path, shard: Path, line: str, why: str
) -> None:
    with shard.open("a") as file:
        file.write(line + "\n")
    ledger = Ledger(tmp_path)
    (bad,) = ledger.bad_lines
    assert (bad.path, bad.number) == (shard, 6)
    assert why in bad.why
    assert len(ledger) == 5


def test_bytes_that_are_no_text_are_one_bad_line(tmp_path: Path, shard: Path) -> None:
    shard.write_bytes(b"\xff\xfe\x00\n" + shard.read_bytes())
    ledger = Ledger(tmp_path)
    assert [bad.number for bad in ledger.bad_lines] == [1]
    assert list(ledger.trials()) == TRIALS


def test_a_trial_that_was_recorded_twice_alike_counts_once(tmp_path: Path) -> None:
    """Two workers may both have run what their cells share."""
    Ledger(tmp_path, "gw0").append(TRIALS)
    Ledger(tmp_path, "gw1").append(TRIALS[:1])
    ledger = Ledger(tmp_path)
    assert (len(ledger), ledger.bad_lines) == (5, [])


def test_a_trial_with_other_tokens_than_the_one_held_is_named(tmp_path: Path) -> None:
    Ledger(tmp_path, "gw0").append(TRIALS)
    Ledger(tmp_path, "gw1").append([replace(TRIALS[2], tokens=(9, 9))])
    ledger = Ledger(tmp_path)
    assert named(ledger) == ["gw1.jsonl line 1: record k2 has other results than one already held"]
    assert ledger.get("k2") == TRIALS[2]
    assert '"tokens": [9, 9]' in (tmp_path / SET_ASIDE).read_text()


@pytest.mark.parametrize("place", ["file", "below-a-file"])
def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path, place: str) -> None:
    (tmp_path / "taken").write_text("mine")
    folder = tmp_path / "taken" / ("ledger" if place == "below-a-file" else "")
    for use in (Ledger, check_writable):
        with pytest.raises(UsageError, match=r"taken.*: cannot be written .*, expected a place"):
            use(folder)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "ledger")
    assert not list((tmp_path / "new" / "ledger").iterdir())


# --- likelihoods ---------------------------------------------------------------------------


def test_likelihoods_stand_beside_the_trials_and_come_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "gw0")
    ledger.append(TRIALS[:1])
    more = replace(LIKELIHOOD, key="l1", oracle_error=1e-7)
    ledger.likelihoods.append([LIKELIHOOD, more])
    again = Ledger(tmp_path)
    assert list(again.trials()) == TRIALS[:1]
    assert list(again.likelihoods.all()) == [LIKELIHOOD, more]
    assert again.likelihoods.get("l1") == more
    assert again.get("l1") is None
    assert not again.bad_lines
    assert (tmp_path / LIKELIHOODS / "gw0.jsonl").exists()


def test_answers_stand_beside_the_trials_and_are_archived_with_them(tmp_path: Path) -> None:
    other = replace(ANSWERED, logp=(-0.25, -0.5), key="a1", pair="another")
    Ledger(tmp_path, "gw0").answers.append([ANSWERED, other])
    again = Ledger(tmp_path)
    assert list(again.answers.all()) == [ANSWERED, other]
    assert (len(again), len(again.likelihoods), again.bad_lines) == (0, 0, [])
    Ledger(tmp_path, "gw1").answers.append([replace(ANSWERED, tokens=(2, 2))])
    (disputed,) = Ledger(tmp_path).disagreements
    assert (disputed.arm, disputed.pair_index) == (ANSWERED.arm, ANSWERED.pair_index)
    aside = archive(tmp_path)
    assert aside is not None
    assert list(Ledger(aside).answers.all()) == [ANSWERED, other]
    assert not len(Ledger(tmp_path).answers)


def test_without_a_folder_likelihoods_are_in_memory_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger()
    ledger.likelihoods.append([LIKELIHOOD])
    assert ledger.likelihoods.get("l0") == LIKELIHOOD
    assert not list(tmp_path.iterdir())


def test_a_line_of_likelihoods_that_cannot_be_read_is_named_with_those_of_trials(
    tmp_path: Path, shard: Path
) -> None:
    Ledger(tmp_path).likelihoods.append([LIKELIHOOD])
    path = tmp_path / LIKELIHOODS / "main.jsonl"
    path.write_text(path.read_text().replace('"of_source": -1.25', '"of_source": -1.35'))
    corrupt(shard, 2)
    ledger = Ledger(tmp_path)
    assert len(ledger.likelihoods) == 0
    assert [bad.path for bad in ledger.bad_lines] == [shard, path]
    assert '"of_source": -1.35' in (tmp_path / LIKELIHOODS / SET_ASIDE).read_text()


def test_a_likelihood_over_other_tokens_than_the_one_held_is_named(tmp_path: Path) -> None:
    Ledger(tmp_path, "gw0").likelihoods.append([LIKELIHOOD])
    # Of another machine: the last digits may differ, how many tokens were fed may not.
    for shard, other in (("gw1", {"of_source": -1.25000001}), ("gw2", {"source_tokens": 8})):
        Ledger(tmp_path, shard).likelihoods.append([replace(LIKELIHOOD, **other)])
    ledger = Ledger(tmp_path)
    assert [bad.path.stem for bad in ledger.bad_lines] == ["gw2"]
    assert ledger.likelihoods.get("l0") == LIKELIHOOD


def test_archive_takes_likelihoods_along(tmp_path: Path, shard: Path) -> None:
    Ledger(tmp_path).likelihoods.append([LIKELIHOOD])
    aside = archive(tmp_path)
    assert aside is not None
    fresh, old = Ledger(tmp_path), Ledger(aside)
    assert (len(fresh), len(fresh.likelihoods)) == (0, 0)
    assert (list(old.trials()), list(old.likelihoods.all())) == (TRIALS, [LIKELIHOOD])
    assert not shard.exists()


@pytest.mark.parametrize("change", [{"extra": 1}, {"kl": ...}], ids=["unknown", "missing"])
def test_a_record_of_another_shape_is_no_likelihood(change: dict[str, object]) -> None:
    content = {**LIKELIHOOD.to_dict(), **change}
    content = {name: value for name, value in content.items() if value is not ...}
    with pytest.raises(ValueError, match="are missing or unknown"):
        Likelihood.from_dict(content)


# --- self-patches ----------------------------------------------------------------------------


def test_self_patches_stand_beside_the_trials_and_come_back(tmp_path: Path) -> None:
    failed = replace(SELF_WRITE, key="w1", beyond_rounding=3, store_unchanged=False)
    Ledger(tmp_path, "gw0").self_patches.append([SELF_WRITE, failed])
    again = Ledger(tmp_path)
    assert list(again.self_patches.all()) == [SELF_WRITE, failed]
    assert (len(again), len(again.likelihoods), again.bad_lines) == (0, 0, [])
    assert (tmp_path / SELF_PATCHES / "gw0.jsonl").exists()


@pytest.mark.parametrize("change", [{"extra": 1}, {"fired": ...}], ids=["unknown", "missing"])
def test_a_self_patch_of_another_version_is_named_and_does_not_count(
    tmp_path: Path, change: dict[str, object]
) -> None:
    content = {**SELF_WRITE.to_dict(), **change}
    body = json.dumps({name: value for name, value in content.items() if value is not ...})
    (tmp_path / SELF_PATCHES).mkdir()
    line = f"{hashlib.sha256(body.encode()).hexdigest()[:16]} {body}\n"
    (tmp_path / SELF_PATCHES / "main.jsonl").write_text(line)
    ledger = Ledger(tmp_path)
    assert len(ledger.self_patches) == 0
    assert ["are missing or unknown" in line for line in named(ledger)] == [True]


@pytest.mark.parametrize(
    ("other", "disagrees"),
    [
        ({"changed": 5}, False),  # of what is computed anew, last bits may differ by batch
        ({"beyond_rounding": 1}, True),
        ({"fired": 1}, True),
        ({"elements": 63}, True),
        ({"store_unchanged": False}, True),
    ],
)
def test_two_shards_that_saw_other_writes_disagree(
    tmp_path: Path, other: dict[str, Any], disagrees: bool
) -> None:
    Ledger(tmp_path, "gw0").self_patches.append([SELF_WRITE])
    Ledger(tmp_path, "gw1").self_patches.append([replace(SELF_WRITE, **other)])
    ledger = Ledger(tmp_path)
    assert [each.arm for each in ledger.disagreements] == [SELF_WRITE.arm] * disagrees
    assert len(ledger.bad_lines) == disagrees
    assert ledger.self_patches.get("w0") == SELF_WRITE


def test_archive_takes_self_patches_along(tmp_path: Path) -> None:
    Ledger(tmp_path).self_patches.append([SELF_WRITE])
    aside = archive(tmp_path)
    assert aside is not None
    assert len(Ledger(tmp_path).self_patches) == 0
    assert list(Ledger(aside).self_patches.all()) == [SELF_WRITE]


# --- archive, and lines of another shape -----------------------------------------------------


def test_archive_moves_every_shard_and_loses_nothing(tmp_path: Path) -> None:
    for turn in (1, 2):
        Ledger(tmp_path, "gw0").append(TRIALS[:turn])
        Ledger(tmp_path, "main").append(TRIALS[turn:])
        before = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
        aside = archive(tmp_path)
        assert aside == tmp_path / f"before-{turn}"
        assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
        assert len(Ledger(tmp_path)) == 0
    assert archive(tmp_path) is None
    assert files_in(tmp_path) == []
    assert sorted(path.name for path in tmp_path.glob("before-*")) == ["before-1", "before-2"]


def test_after_a_fresh_start_a_bad_line_is_set_aside_again(tmp_path: Path, shard: Path) -> None:
    corrupt(shard, 2)
    Ledger(tmp_path)
    archive(tmp_path)
    Ledger(tmp_path).append([replace(one, model="another") for one in TRIALS])
    line = corrupt(shard, 2)
    assert len(named(Ledger(tmp_path))) == 1
    assert line in (tmp_path / SET_ASIDE).read_text()


def test_the_line_of_a_trial_is_json_after_its_checksum(shard: Path) -> None:
    checksum, _, body = shard.read_text().splitlines()[0].partition(" ")
    assert len(checksum) == 16
    assert Trial.from_dict(json.loads(body)) == TRIALS[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tokens": "4 5"}, r"\$\.tokens: expected array, got str"),
        ({"tokens": [1.5]}, r"\$\.tokens\[0\]: expected int, got float"),
        ({"extra": 1}, "'extra'. are missing or unknown"),
    ],
    ids=["text", "fractions", "unknown-field"],
)
def test_a_record_of_another_shape_is_no_trial(change: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Trial.from_dict({**TRIAL.to_dict(), "tokens": [4], **change})


def test_lines_of_another_version_are_named_once_and_stay(tmp_path: Path) -> None:
    Ledger(tmp_path).append(TRIALS)
    path = tmp_path / "main.jsonl"
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        content = json.loads(line.partition(" ")[2])
        del content["geometry"]
        body = json.dumps(content, ensure_ascii=False)
        lines.append(f"{hashlib.sha256(body.encode()).hexdigest()[:16]} {body}\n")
    path.write_text("".join(lines), encoding="utf-8")
    ledger = Ledger(tmp_path)
    assert len(ledger) == 0
    (bad,) = ledger.bad_lines
    assert bad.number == 1
    assert "geometry" in str(bad)
    assert f"and {len(TRIALS) - 1} more such lines" in str(bad)
    assert not (tmp_path / "set-aside.txt").exists()
    assert path.read_text(encoding="utf-8") == "".join(lines)


FORGED: dict[str, object] = {
    "tokens": [1.0, 2.0],
    "tokens ": [-1],
    "tokens  ": [10**400],
    "pair_index": -1,
    "seed": "0",
    "seed ": 2**60,
    "arm": ["base"],
    "pair": None,
    "text": 3,
    "stopped": "never",
    "elements": 1.5,
    "margin": "near",
    "margin ": None,
    "differs": {},
    "reference_same_tokens": 1,
    "oracle_error": -0.5,
    "geometry": {"uncentred/prompt": ["x"]},
    "geometry ": {"uncentred/prompt": [0.0]},
    "geometry  ": [[1.5]],
}


@pytest.mark.parametrize("field", FORGED)
def test_a_forged_line_is_set_aside_and_named(tmp_path: Path, shard: Path, field: str) -> None:
    """Its checksum is right, its types are not: nothing behind the ledger ever meets it."""
    content = {**replace(TRIAL, key="forged").to_dict(), field.strip(): FORGED[field]}
    body = json.dumps(content)
    line = f"{hashlib.sha256(body.encode()).hexdigest()[:16]} {body}"
    with shard.open("a") as file:
        file.write(line + "\n")
    ledger = Ledger(tmp_path)
    assert len(ledger) == 5
    assert ledger.get("forged") is None
    (bad,) = ledger.bad_lines
    assert (bad.path, bad.number) == (shard, 6)
    assert line in (tmp_path / SET_ASIDE).read_text()


@pytest.mark.parametrize("change", [{"kl": "x"}, {"pair_index": -1}, {"of_base": None}])
def test_a_forged_likelihood_is_set_aside(tmp_path: Path, change: dict[str, object]) -> None:
    body = json.dumps({**LIKELIHOOD.to_dict(), **change})
    (tmp_path / LIKELIHOODS).mkdir()
    line = f"{hashlib.sha256(body.encode()).hexdigest()[:16]} {body}\n"
    (tmp_path / LIKELIHOODS / "main.jsonl").write_text(line)
    ledger = Ledger(tmp_path)
    assert len(ledger.likelihoods) == 0
    assert len(ledger.bad_lines) == 1


class FullDisk(io.FileIO):
    """A file on a disk that has room for so many bytes more."""

    room = 0

    def write(self, data: Any) -> int:
        if not FullDisk.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = bytes(data)[: FullDisk.room]
        FullDisk.room -= len(taken)
        return super().write(taken)


@pytest.mark.parametrize("room", [0, 1, 300, 1500])
def test_a_full_disk_is_one_line_and_leaves_the_shard_as_it_was(
    tmp_path: Path, shard: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    before = shard.read_bytes()
    ledger = Ledger(tmp_path)
    more = [replace(TRIAL, key=f"m{i}") for i in range(3)]
    with monkeypatch.context() as full:
        full.setattr(FullDisk, "room", room)
        full.setattr(Path, "open", lambda path, *_, **__: FullDisk(path, "a+"))
        with pytest.raises(UnwritableError, match="No space left on device") as refused:
            ledger.append(more)
    assert str(refused.value).startswith(f"{shard}: cannot be written (")
    assert "\n" not in str(refused.value)
    assert shard.read_bytes() == before
    assert ledger.get("m0") is None  # what is not kept is not known either
    ledger.append(more)
    found = Ledger(tmp_path)
    assert len(found) == 8
    assert not found.bad_lines


def test_an_interrupt_while_lines_are_written_leaves_whole_lines(
    tmp_path: Path, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shard.read_bytes()

    class Interrupted(FullDisk):
        def write(self, data: Any) -> int:
            io.FileIO.write(self, bytes(data)[:100])
            raise KeyboardInterrupt

    ledger = Ledger(tmp_path)
    with monkeypatch.context() as stopped:
        stopped.setattr(Path, "open", lambda path, *_, **__: Interrupted(path, "a+"))
        with pytest.raises(KeyboardInterrupt):
            ledger.append([replace(TRIAL, key="m0")])
    assert shard.read_bytes() == before


def test_a_torn_line_of_a_kill_gets_its_end_with_the_next_batch(
    tmp_path: Path, shard: Path
) -> None:
    torn = shard.read_bytes()[:-7]
    shard.write_bytes(torn)
    Ledger(tmp_path).append([replace(TRIAL, key="m0")])
    assert shard.read_bytes().startswith(torn + b"\n")
    found = Ledger(tmp_path)
    assert len(found) == 5
    assert [bad.number for bad in found.bad_lines] == [5]
