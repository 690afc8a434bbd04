"""The settings that options and the project's ini become, and what is refused with any."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.plugin import ini
from kv_claims.plugin.settings import ALL_PLANTED, REPLAY_OUT, Settings, all_of

NO_RERUNS = (
    "a verdict is not run again until it pleases; expected a run of more pairs, or `looks` that "
    "the claim declares"
)


def settings_of(config: pytest.Config) -> Settings:
    """What was asked for: by options, else by the project's ini.

    Raises UsageError for a batch size that is none, and for a key of the ini that is empty.
    """
    option, project = config.option, ini.project_of(config)
    is_replay = option.claims_replay is not None
    if is_replay:
        # What is stored says itself on which models it was run, and by which task: only what is
        # asked for on the command line is another one.
        project = replace(project, models=(), task=None, out=None)
    by_ini = {
        ini.MODELS: not option.claims_model and bool(project.models),
        ini.TASK: not option.claims_task and project.task is not None,
        ini.PINS: project.pins is not None,
        ini.OUT: not option.claims_out and project.out is not None,
    }
    names = project.models if by_ini[ini.MODELS] else tuple(option.claims_model or ())
    given = {
        "models": all_of(names),
        "revision": option.claims_revision,
        "device": option.claims_device,
        "dtype": option.claims_dtype,
        "task": project.task if by_ini[ini.TASK] else _path(option.claims_task),
        "chat": option.claims_chat,
        "pairs": option.claims_pairs,
        "seeds": option.claims_seeds,
        "max_new_tokens": option.claims_max_new_tokens,
        "temperature": option.claims_temperature,
        "batch_size": _batch_size(option.claims_batch_size),
        "profile": option.claims_profile,
        "protocol": option.claims_protocol,
        "out": project.out if by_ini[ini.OUT] else _path(option.claims_out),
        "pins": project.pins,
        "strict": option.claims_strict,
        "update": option.claims_update,
        "resume": option.claims_resume,
        "sign": _path(option.claims_sign),
        "allow_code": option.claims_allow_code,
        "replayed": _path(option.claims_replay),
    }
    return Settings(
        root=config.rootpath,
        command=shlex.join(["pytest", *map(str, config.invocation_params.args)]),
        is_by_file=by_ini[ini.MODELS] and ALL_PLANTED in names,
        said={"": project.file_text, **{key: project.said(key) for key in by_ini if by_ini[key]}},
        **{
            "out": config.rootpath / (REPLAY_OUT if is_replay else Settings.out),
            **{name: value for name, value in given.items() if value is not None},
        },
    )


def refuse_options(config: pytest.Config) -> None:
    """Raise UsageError for what no verdict bears: tests run again, or by each worker."""
    for option, name in (("reruns", "--reruns"), ("force_flaky", "--force-flaky")):
        if getattr(config.option, option, None):
            raise UsageError(f"{name}: {NO_RERUNS}")
    if getattr(config.option, "dist", "no") == "each":
        raise UsageError(
            "--dist each: every claim would be judged by each worker; expected load, loadgroup or "
            "another that shares them out"
        )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _batch_size(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--claims-batch-size {text!r}: expected a whole number or auto") from None
