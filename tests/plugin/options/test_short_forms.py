"""Every option by both forms: what one law says of all of them. Values: the file of each."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.plugin.options import OPTIONS, Option, is_any_given, merge_forms

VALUES = {
    "pairs": ("3", "4"),
    "seeds": ("3", "4"),
    "max-new-tokens": ("3", "4"),
    "temperature": ("0.5", "0.6"),
    "protocol": ("claims", "published"),
}
WITH_SHORT = [option for option in OPTIONS if option.short]


def parsed(*arguments: str) -> Namespace:
    """What pytest's parser keeps of arguments, once forms are merged."""
    parser = ArgumentParser(allow_abbrev=False)
    for option in OPTIONS:
        parser.add_argument(option.long_form, dest=option.dest, **option.told)
        if option.short:
            parser.add_argument(option.short_form, dest=option.short_dest, **option.told)
    given = parser.parse_args(arguments)
    merge_forms(given)
    return given


def typed(option: Option, form: str, which: int = 0) -> list[str]:
    """An option as it is typed, with the first or the second of two values."""
    if "store_" in option.told.get("action", ""):
        return [form]
    return [form, VALUES.get(option.name, ("a", "b"))[which]]


@pytest.mark.parametrize("option", WITH_SHORT, ids=lambda option: option.name)
def test_the_short_form_is_the_long_one(option: Option) -> None:
    long = parsed(*typed(option, option.long_form))
    short = parsed(*typed(option, option.short_form))
    both = parsed(*typed(option, option.long_form), *typed(option, option.short_form))
    found = getattr(long, option.dest)
    assert found is not None
    assert getattr(short, option.dest) == getattr(both, option.dest) == found
    assert is_any_given(long)
    assert is_any_given(short)


OF_TWO_VALUES = [option for option in WITH_SHORT if option.name != "chat"]
"""The others: `--chat` says one thing only."""


@pytest.mark.parametrize("option", OF_TWO_VALUES, ids=lambda option: option.name)
def test_two_forms_of_two_values_are_refused_by_name(option: Option) -> None:
    short, long = typed(option, option.short_form), typed(option, option.long_form, 1)
    if option.dest == "claims_resume":
        long = ["--claims-no-resume" if option.name == "resume" else "--claims-resume"]
    with pytest.raises(UsageError) as error:
        parsed(*long, *short)
    assert str(error.value).startswith(f"{' '.join(short)} and {' '.join(long)}: two forms")


def test_nothing_given_is_nothing() -> None:
    assert not is_any_given(parsed())


def test_every_option_has_a_file_of_its_own() -> None:
    here = Path(__file__).parent
    for option in OPTIONS:
        of_it = f"test_{option.dest}.py"
        assert (here / of_it).is_file() or (here.parent / of_it).is_file(), of_it
