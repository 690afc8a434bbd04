"""Steps *gpu-tests* and *device-tests*: the project's tests where they meet the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kv_claims.benching.gpu.command import python, workers
from kv_claims.benching.gpu.steps import Finding, Findings, Given

SHOWN = 30
"""Failures whose traces are kept in the findings; the log has all of them."""
_TRACE = 6000
SMALL = (
    "tests/patch/test_memory.py",
    "tests/run/test_sampling.py",
    "tests/run/test_captured.py",
)


def of_a_gpu(given: Given) -> Findings:
    """The tests that are marked `gpu`. Without one they all say that they skip."""
    places = ["tests/run/test_static_route.py"] if given.small else ["tests"]
    yield _suite(given, "tests that need a GPU", [*places, "-m", "gpu"], [])


def on_the_device(given: Given) -> Findings:
    """`tests/run` and `tests/patch`, their models on the device (`KV_CLAIMS_DEVICE`)."""
    places = list(SMALL) if given.small else ["tests/run", "tests/patch"]
    yield _suite(
        given, "tests/run and tests/patch", [*places, "-m", "not slow and not gpu"], workers()
    )


def _suite(given: Given, name: str, what: Sequence[str], several: Sequence[str]) -> Finding:
    junit = given.folder / "junit.xml"
    junit.unlink(missing_ok=True)
    ran = python(
        *("-m", "pytest", *what, *several, "-p", "no:cacheprovider", "--benchmark-disable"),
        *("--junitxml", str(junit), "--tb=long", "-q"),
        seconds=given.seconds - 25,
        env={"KV_CLAIMS_DEVICE": given.device, "OMP_NUM_THREADS": "1"},
    )
    found = read(junit)
    ended = "" if ran.status is not None else "; interrupted, as its time was over"
    lines = [
        f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped in "
        f"{ran.seconds:.0f} s, exit status {ran.status}{ended}",
        *(f"skipped {n} x: {why}" for why, n in found["reasons"].items()),
    ]
    for one in found["failures"]:
        lines += [f"FAILED {one['test']}: {one['message']}"]
    return Finding(name, ran.status == 0, lines, {**found, "seconds": ran.seconds})


def read(junit: Path) -> dict[str, Any]:
    """Counts, failures with their traces, and why tests were skipped, from a JUnit file."""
    found: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": [], "reasons": {}}
    if not junit.is_file():
        return found
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        broken = [child for child in case if child.tag in ("failure", "error")]
        skipped = case.find("skipped")
        if broken:
            found["failed"] += 1
            if len(found["failures"]) < SHOWN:
                found["failures"].append(
                    {
                        "test": f"{case.get('classname')}::{case.get('name')}",
                        "message": " ".join((broken[0].get("message") or "").split())[:300],
                        "trace": (broken[0].text or "")[-_TRACE:],
                    }
                )
        elif skipped is not None:
            why = skipped.get("message") or ""
            found["skipped"] += 1
            found["reasons"][why] = found["reasons"].get(why, 0) + 1
        else:
            found["passed"] += 1
    return found
