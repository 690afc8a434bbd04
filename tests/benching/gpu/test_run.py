"""Steps one after another: how each ends, what is left of it, and what a later call adds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from kv_claims.benching.gpu import record, report, steps
from kv_claims.benching.gpu.__main__ import main
from kv_claims.benching.gpu.record import Record
from kv_claims.benching.gpu.run import Asked, run
from kv_claims.benching.gpu.steps import ROOT, STEPS, Step, chosen
from kv_claims.errors import UsageError

HERE = "tests.benching.gpu.made_up_steps"
LONG = 60


def step(does: str, **about: Any) -> Step:
    given = {"name": does, "asks": f"How does {does}?", "takes": 1, "most": LONG, **about}
    return Step(does=f"{HERE}:{does}", **given)


def asked(out: Path, **about: Any) -> Asked:
    given = {"device": "cpu", "small": True, "model": None, "minutes": 5.0, "paths": (ROOT,)}
    return Asked(out, **{**given, **about})


def ran(out: Path, *some: Step, said: str = "a call", **about: Any) -> dict[str, Any]:
    run(some, asked(out, **about), said=said)
    content: dict[str, Any] = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    return content


def test_it_runs_from_a_checkout_that_is_not_installed() -> None:
    # Without its site module Python reads no path file: no editable install comes in.
    done = subprocess.run(
        ["make", "gpu", "GPU=--list", f"GPU_PYTHON='{sys.executable}' -S"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(step.name in done.stdout for step in STEPS)


def test_however_a_step_ends_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = (
        *map(step, ("raises", "dies", "finds_nothing", "short")),
        step("hangs", most=2),
        step("well", needs=("json",)),
        step("well", name="absent", needs=("no_such_package",)),
    )
    monkeypatch.setattr(report, "STEPS", made_up)
    assert run(made_up, asked(tmp_path, model="m"), said="all of them") == 1
    content = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    found = content["steps"]
    assert {name: (one["state"], one.get("why", "")) for name, one in found.items()} == {
        "raises": (record.FAILED, "exit status 1"),
        "dies": (record.FAILED, "ended by SIGKILL"),
        "finds_nothing": (record.FAILED, "exit status 0"),
        "short": (record.SHORT, "not so"),
        "hangs": (record.OUT_OF_TIME, "after 8 s"),
        "well": (record.DONE, ""),
        "absent": (record.SKIPPED, "not here: no_such_package"),
    }
    # What each had found before is there, and the whole trace of what was raised.
    for name in ("raises", "dies", "hangs"):
        assert [one["name"] for one in found[name]["findings"]] == ["before"]
    assert "ValueError: a trace to bring home" in found["raises"]["tail"]
    assert "Traceback" in (tmp_path / found["raises"]["log"]).read_text(encoding="utf-8")
    assert found["well"]["findings"][0]["data"] == {"number": "nan"}
    assert found["well"]["findings"][1]["lines"] == ["model m, small True"]
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for text in ("How does hangs?", "a trace to bring home", "    a | b", "too slow", "SMALL=1"):
        assert text in page
    child = int((tmp_path / "steps/hangs/child").read_text(encoding="utf-8"))
    assert not _is_alive(child)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody has waited for.
    return "State:\tZ" not in Path(f"/proc/{process}/status").read_text(encoding="utf-8")


def test_a_later_call_adds_to_what_is_there(tmp_path: Path) -> None:
    ran(tmp_path, step("well"), step("short"), said="first")
    content = ran(tmp_path, step("raises", name="short"), said="second")
    assert [call["said"] for call in content["calls"]] == ["first", "second"]
    assert content["steps"]["well"]["state"] == record.DONE
    assert content["steps"]["short"]["state"] == record.FAILED
    assert ran(tmp_path, step("short"))["steps"]["short"] == {
        **ran(tmp_path, step("short"))["steps"]["short"],
        "state": record.SHORT,
    }


def test_what_no_longer_fits_is_listed_and_takes_no_earlier_answer_away(tmp_path: Path) -> None:
    ran(tmp_path, step("well"))
    some = (step("well", takes=100), step("short", takes=100))
    content = ran(tmp_path, *some, minutes=1.0, small=False)
    assert content["steps"]["well"]["state"] == record.DONE
    assert content["steps"]["short"]["state"] == record.NOT_RUN
    assert content["steps"]["short"]["why"].endswith("s were left")


def test_a_step_gets_no_more_than_what_is_left(tmp_path: Path) -> None:
    content = ran(tmp_path, step("hangs"), minutes=6 / 60)
    assert content["steps"]["hangs"]["state"] == record.OUT_OF_TIME
    assert content["steps"]["hangs"]["seconds"] < LONG / 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_stopped_from_outside_what_was_found_is_there(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As a machine that is taken away does; the step's own processes go where that can be done."""
    script = (
        "from pathlib import Path; from tests.benching.gpu.test_run import *; "
        f"ran(Path({str(tmp_path)!r}), step('hangs'))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    child = tmp_path / "steps/hangs/child"
    found: dict[str, Any] = {}
    for _ in range(600):
        time.sleep(0.1)
        if (tmp_path / "gpu.json").is_file():
            content = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
            found = content["steps"].get("hangs", {})
            if found.get("findings"):
                break
    assert (found["state"], found["findings"][0]["name"]) == (record.RUNNING, "before")
    process.send_signal(number)
    process.wait(30)
    if number == signal.SIGKILL:
        _kill_group_of(int(child.read_text(encoding="utf-8")))
        assert Record(tmp_path).state("hangs") == record.RUNNING
        # The next call says so.
        assert ran(tmp_path, step("well"))["steps"]["hangs"]["why"] == "stopped from outside"
    else:
        assert not _is_alive(int(child.read_text(encoding="utf-8")))
        assert Record(tmp_path).steps["hangs"]["why"] == "stopped from outside"
    assert Record(tmp_path).steps["hangs"]["findings"][0]["name"] == "before"


def _kill_group_of(process: int) -> None:
    os.killpg(os.getpgid(process), signal.SIGKILL)


def test_steps_are_asked_for_by_name() -> None:
    names = [one.name for one in STEPS]
    assert [one.name for one in chosen()] == names
    assert len(set(names)) == len(names)
    assert [one.name for one in chosen(only=["words", "machine"])] == ["machine", "words"]
    assert [one.name for one in chosen(first="words", skip=["claims"])] == [
        name for name in names[names.index("words") :] if name != "claims"
    ]
    with pytest.raises(UsageError, match="step 'wrods': expected one of machine, "):
        chosen(only=["wrods"])


def test_all_that_is_asked_for_takes_less_than_the_time_that_there_is() -> None:
    """So that a card on which all goes well is asked everything."""
    assert sum(one.takes for one in STEPS) < 25 * 60
    assert all(one.takes < one.most < 10 * 60 for one in STEPS)
    assert steps.ROOT.joinpath("Makefile").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nothing"], "step 'nothing'"),
        (["--from", "nothing"], "step 'nothing'"),
        (["--minutes", "0"], "expected more than 0"),
    ],
    ids=["only", "from", "minutes"],
)
def test_bad_usage_is_said_in_a_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("content", ["no json", "[]", '{"schema": 0}'])
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gpu.json").write_text(content, encoding="utf-8")
    assert main(["--small", "--only", "machine", "--out", str(tmp_path)]) == 2
    assert "move it aside" in capsys.readouterr().err
    assert (tmp_path / "gpu.json").read_text(encoding="utf-8") == content


@pytest.mark.slow
def test_every_step_can_be_tried_without_a_gpu(tmp_path: Path) -> None:
    """The command of `SMALL=1 make gpu`. A neighbour that is not here is named."""
    nothing = tmp_path / "nothing"
    options = ["--small", "--minutes", "30", "--out", str(tmp_path), "--pack", str(nothing)]
    assert main(options) == 0
    content = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert {name: one["state"] for name, one in content["steps"].items()} == {
        one.name: record.DONE for one in STEPS
    }
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for one in STEPS:
        assert f"## {one.name}\n" in page
    assert "nothing was brought along" in page
    # A later call has nothing left to do.
    assert main([*options, "--rest"]) == 0
    assert (
        json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["calls"][-1]["steps"] == []
    )
