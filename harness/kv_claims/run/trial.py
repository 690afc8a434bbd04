"""A trial: one generation of one arm of one pair with one seed, and what the run saw of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from msgspec import Meta

from kv_claims.files.reading import Count, Number, typed

Ratio = Annotated[float, Meta(gt=0, le=1e150)]
"""A participation ratio."""
Geometry = dict[str, list[Ratio | None] | None]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
Error = Annotated[float, Meta(ge=0)]


@dataclass(frozen=True)
class Trial:
    """One record of the ledger.

    key: hash of everything that determines the tokens. study: hash of model, task, sampling and
    fingerprint, shared by the trials of a run.
    source_sha, base_sha: of the prompts' texts; source_tokens_sha, base_tokens_sha: of their token
    ids, by which a prompt is the same as another (`Rows.identity`).
    tokens: generated ids only. text: their text, without special tokens.
    planned, fired: tensors to write and written before it generated; planned_elements: numbers to
    write there; elements, changed, beyond_rounding, least_changed, differs: see
    `patch.plan.Footprint`. known_equal: whether the tokens say that all it writes stands there
    already, so that its effect is an exact zero. planned_steps, fired_steps: tensors to write
    and written while it generated, over all steps; changed_steps, beyond_rounding_steps: numbers
    that they changed.
    margin: smallest distance of a uniform from an edge of its interval in the CDF.
    reference: the arm whose row stood in the same batch for comparison, whether its tokens were
    the same (up to a near tie that the difference of logits explains), the largest difference of
    logits as long as they were, and the largest logit; None where there was none.
    oracle_error: relative error of its logits against the independent recomputation;
    oracle_keys_error: the same of the keys that were pasted; oracle_shift: by how many positions
    they moved. None where they were not recomputed.
    geometry: participation ratios of its values by name (see `run.geometry`), one a layer; None
    where the window does not fit.
    """

    key: str
    study: str
    model: str
    task: str
    pair: str
    pair_index: Count
    source: str
    base: str
    source_sha: str
    base_sha: str
    source_tokens_sha: str
    base_tokens_sha: str
    arm: str
    seed: Count
    prompt_tokens: Count
    cached_slots: Count
    tokens: tuple[TokenId, ...]
    text: str
    stopped: Literal["length", "stop-token"]
    planned: Count
    fired: Count
    planned_elements: Count
    elements: Count
    changed: Count
    beyond_rounding: Count
    least_changed: Count | None
    differs: Count | None
    known_equal: bool
    planned_steps: Count
    fired_steps: Count
    changed_steps: Count
    beyond_rounding_steps: Count
    margin: Number
    reference: str | None
    reference_same_tokens: bool | None
    reference_difference: Error | None
    reference_scale: Error | None
    oracle_error: Error | None
    oracle_keys_error: Error | None
    oracle_shift: int | None
    geometry: Geometry

    def says_the_same(self, other: Trial) -> bool:
        """Whether another record of the same trial has the same tokens."""
        return self.tokens == other.tokens

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Trial:
        """Raises ValueError where a field is missing, unknown or of the wrong type."""
        check_fields(cls, content)
        return typed(content, cls, "a trial")


class OtherFieldsError(ValueError):
    """A record that is whole, of another version of the program."""


def check_fields(record: type, content: dict[str, Any]) -> None:
    """Raise OtherFieldsError unless the content has a record's fields, all of them and no other."""
    names = {field.name for field in fields(record)}
    if set(content) != names:
        wrong = sorted(names.symmetric_difference(content))
        raise OtherFieldsError(f"fields {wrong} are missing or unknown")
