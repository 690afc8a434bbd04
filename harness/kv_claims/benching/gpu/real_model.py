"""Which real model is at hand, for the steps that want one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kv_claims.benching.gpu.steps import ROOT
from kv_claims.errors import UsageError
from kv_claims.files.shipped import shipped
from kv_claims.models.mini import NAME as MINI

STORIES = "models/stories260K"
"""Beside the checkout, in `shared/`, or in it."""


class RealModel(NamedTuple):
    """name: as `--model` takes it. options: what else pytest is given for it. said: which, why."""

    name: str
    options: Sequence[str]
    said: str


def real_model(asked: str | None) -> RealModel:
    """The folder that was asked for, else stories260K, else mini. Raises UsageError for no folder.

    GGUF files, and models in packages, are not taken here.
    """
    if asked == MINI:
        return RealModel(MINI, ["-k", "not L25+L27"], "mini, as asked for")
    if asked is not None:
        folder = Path(asked).expanduser()
        folder = folder if folder.is_absolute() else ROOT / folder
        if not (folder / "config.json").is_file():
            raise UsageError(f"MODEL={asked}: expected a folder with a config.json, or mini")
        return RealModel(str(folder), [], f"{folder.name}, as asked for")
    for shared in (ROOT.parent / "shared", ROOT / "shared"):
        folder = shared / STORIES
        if (folder / "config.json").is_file():
            task = shipped("tasks/sea_stories.yaml")
            return RealModel(
                str(folder), ["--task", str(task)], "stories260K, as MODEL names no other"
            )
    return RealModel(
        MINI, ["-k", "not L25+L27"], "mini, as MODEL names none and stories260K is not here"
    )
