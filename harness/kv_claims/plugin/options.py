"""The options of `pytest claims`, the settings that they become, and what is refused with any."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.plugin.session import EMBEDDED, PROFILES, PROTOCOLS, REPLAY_OUT, Settings

NO_RERUNS = (
    "a verdict is not run again until it pleases; expected a run of more pairs, or `looks` that "
    "the claim declares"
)


def add_options(parser: pytest.Parser) -> None:
    """Add them in a group of their own."""
    group = parser.getgroup("claims", "claims about patching the KV cache")
    add = group.addoption
    add(
        "--model",
        action="append",
        dest="claims_models",
        metavar="NAME",
        help="planted:NAME, mini, a folder, or a hub id; repeatable (default: all planted models)",
    )
    add("--revision", dest="claims_revision", help="revision of a hub id")
    add("--device", dest="claims_device", help="cpu, cuda, cuda:N (default: a GPU if there is one)")
    add("--dtype", dest="claims_dtype", help="float64, float32, bfloat16 or float16")
    add("--task", dest="claims_task", metavar="FILE", help="task file for models not planted")
    add("--pairs", dest="claims_pairs", type=int, metavar="N", help="pairs to run, from the first")
    add(
        "--seeds",
        dest="claims_seeds",
        type=int,
        metavar="N",
        help="sampling seeds, of each pair",
    )
    add("--max-new-tokens", dest="claims_max_new_tokens", type=int, metavar="N")
    add("--temperature", dest="claims_temperature", type=float, metavar="X", help="0.7; 0: greedy")
    add("--batch-size", dest="claims_batch_size", metavar="N|auto", help="rows decoded together")
    add("--claims-profile", dest="claims_profile", choices=sorted(PROFILES))
    add(
        "--protocol",
        dest="claims_protocol",
        choices=PROTOCOLS,
        help="published: no claims, but the seed's procedure with its defects, one less at a time",
    )
    add("--claims-out", dest="claims_out", metavar="DIR", help="default reports/latest")
    add(
        "--claims-replay",
        dest="claims_replay",
        metavar="DIR|YAML",
        help="judge stored trials again, or a published table (docs/replay.md); no model is run",
    )
    add(
        "--claims-strict",
        dest="claims_strict",
        action="store_true",
        help="inconclusive and invalid verdicts fail",
    )
    add(
        "--claims-update",
        dest="claims_update",
        action="store_true",
        help="write what was found to claims/pins, and show what that changes",
    )
    add(
        "--claims-sign",
        dest="claims_sign",
        metavar="KEY",
        help="sign the evidence by an Ed25519 key in a PEM file (docs/report.md)",
    )
    add("--resume", dest="claims_resume", action="store_true", default=None)
    add(
        "--no-resume",
        dest="claims_resume",
        action="store_false",
        help="move earlier trials aside and run all again",
    )


def settings_of(config: pytest.Config) -> Settings:
    """What was asked for. Raises UsageError for a batch size that is none."""
    option = config.option
    given = {
        "models": tuple(option.claims_models or EMBEDDED),
        "revision": option.claims_revision,
        "device": option.claims_device,
        "dtype": option.claims_dtype,
        "task": Path(option.claims_task) if option.claims_task else None,
        "pairs": option.claims_pairs,
        "seeds": option.claims_seeds,
        "max_new_tokens": option.claims_max_new_tokens,
        "temperature": option.claims_temperature,
        "batch_size": _batch_size(option.claims_batch_size),
        "profile": option.claims_profile,
        "protocol": option.claims_protocol,
        "out": Path(option.claims_out)
        if option.claims_out
        else config.rootpath / (Settings.out if option.claims_replay is None else REPLAY_OUT),
        "strict": option.claims_strict,
        "update": option.claims_update,
        "resume": option.claims_resume,
        "sign": Path(option.claims_sign) if option.claims_sign else None,
    }
    return Settings(
        root=config.rootpath,
        command=shlex.join(["pytest", *map(str, config.invocation_params.args)]),
        **{name: value for name, value in given.items() if value is not None},
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


def is_any_given(config: pytest.Config) -> bool:
    """Whether any of our options was given."""
    return config.option.claims_resume is False or any(
        value is not None and value is not False
        for name, value in vars(config.option).items()
        if name.startswith("claims_")
    )


def _batch_size(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--batch-size {text!r}: expected a whole number or auto") from None
