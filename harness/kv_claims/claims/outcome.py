"""What is measured on a trial, as text and as data. No torch here.

For: naming an outcome in a claim (`outcome="pr@27/32"`), and saying in the evidence what the name
stands for. Promises: one spelling per outcome (`str`), every bad name an error that says what is
expected, a window that does not fit an error (docs/failures.md names it *short-window*).
Does not: measure anything (`kv_claims.measure`), nor decide whether a patch can move it
(`kv_claims.claims.reach`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from kv_claims.claims.layers import resolve_layers
from kv_claims.errors import NoSuchCellError, UsageError

WINDOW = 16
"""Rows of every window whose participation ratio is taken."""
EARLY, LATE = "5/32", "27/32"
"""The two depths that R_V compares."""

TextName = Literal[
    "behavior", "distinct_share", "repeated_4grams", "score_lexicon", "score_published"
]
LikelihoodName = Literal["loglik", "kl"]
AnswerName = Literal["logit_diff", "prob", "rank", "accuracy", "choice"]
ContinuationName = Literal["loss", "perplexity"]
GeometryName = Literal["pr", "rv"]
Name = TextName | LikelihoodName | AnswerName | ContinuationName | GeometryName
TEXT_NAMES: tuple[TextName, ...] = get_args(TextName)
LIKELIHOOD_NAMES: tuple[LikelihoodName, ...] = get_args(LikelihoodName)
ANSWER_NAMES: tuple[AnswerName, ...] = get_args(AnswerName)
CONTINUATION_NAMES: tuple[ContinuationName, ...] = get_args(ContinuationName)
GEOMETRY_NAMES: tuple[GeometryName, ...] = get_args(GeometryName)
_PLAIN_NAMES = (*TEXT_NAMES, *LIKELIHOOD_NAMES, *ANSWER_NAMES, *CONTINUATION_NAMES)
Behind = Literal["answers", "continuation"]
"""What of a task's prompts is fed behind them."""
RATES = ("accuracy", "choice")
"""Outcomes that are 0 or 1 of each pair."""
EITHER_WAY = ("rank", *CONTINUATION_NAMES, *GEOMETRY_NAMES)
"""Outcomes of which the source may have less than the base."""

Variant = Literal["uncentred", "centred", "unsquared"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
Where = Literal["prompt", "generated"]
WHERES: tuple[Where, ...] = get_args(Where)

_FORMULAS: dict[Name, str] = {
    "behavior": "the task's scorer, of the generated text",
    "distinct_share": "distinct words / words, of the generated text",
    "repeated_4grams": "share of the word 4-grams that stood in the generated text before",
    "score_lexicon": "the lexicon's rate, of the generated text",
    "score_published": "the published marker score, of the generated text",
    "loglik": "mean log p(token) over the source's continuation - over the base's, teacher-forced",
    "kl": "-mean KL(source's next-token distribution || this arm's), over the source's "
    "continuation, teacher-forced",
    "logit_diff": "log p(the source's answer) - log p(its foil), each summed over its tokens, "
    "teacher-forced",
    "prob": "p(the source's answer), the product over its tokens, teacher-forced",
    "rank": "1 + the number of tokens that are likelier than the source's answer, of one token",
    "accuracy": "1 where the source's answer is likelier than its foil and all other choices, "
    "else 0; summed log-probabilities",
    "choice": "1 where the source's answer is the likeliest of its choices a byte, else 0; summed "
    "log-probabilities, each over the choice's length in UTF-8 without blanks around it",
    "loss": "-mean log p(token) over the given continuation, teacher-forced",
    "perplexity": "exp of the loss of the given continuation, pair by pair",
}
_UNITS: dict[Name, str] = {
    "behavior": "score of the task's scorer",
    "distinct_share": "share of words",
    "repeated_4grams": "share of 4-grams",
    "score_lexicon": "lexicon score",
    "score_published": "published score (0 to 22)",
    "loglik": "nats per token",
    "kl": "nats",
    "logit_diff": "nats",
    "prob": "probability",
    "rank": "rank (1 is the likeliest)",
    "accuracy": "share of pairs",
    "choice": "share of pairs",
    "loss": "nats per token",
    "perplexity": "perplexity",
    "pr": "effective dimensions",
    "rv": "ratio",
}
_PR_FORMULAS: dict[Variant, str] = {
    "uncentred": "(sum s^2)^2 / sum s^4, s the singular values of the window",
    "centred": "(sum s^2)^2 / sum s^4, s the singular values of the window less its column means",
    "unsquared": "(sum s)^2 / sum s^2, s the singular values of the window",
}
_GRAMMAR = re.compile(r"(pr|rv)(?:-([a-z]+))?(?:@(\d+(?:/\d+)?))?(?:/([a-z]+))?")
_EXPECTED = (
    f"expected one of {', '.join(_PLAIN_NAMES)}, or the geometry of v_proj: "
    "'pr@27/32' (a depth), 'pr@13' (a layer) or 'rv', each with '/prompt' (the default) or "
    "'/generated' behind it, and '-centred' or '-unsquared' after 'pr' or 'rv' for that variant"
)


@dataclass(frozen=True)
class Outcome:
    """One number measured on a trial.

    name: 'behavior' and other columns of a text | 'loglik', 'kl' | 'logit_diff' and others of a
        pair's answers | 'loss', 'perplexity' of a given continuation | 'pr', 'rv'.
    layer: of 'pr' only: '13' or '27/32' (layer floor(d * n_layers)).
    where: of geometry only: over the last 16 tokens of the prompt, or over the last 16 generated
        tokens that the model has read (it has read n-1 of the n it generated).
    variant: of geometry only: which formula; 'uncentred' is the published one.
    Raises UsageError where the parts do not go together; whether a layer is in a model is found by
    `layers`, and whether a window fits by `rows`.
    """

    name: Name
    layer: str | None = None
    where: Where = "prompt"
    variant: Variant = "uncentred"

    def __post_init__(self) -> None:
        if self.name not in (*_PLAIN_NAMES, *GEOMETRY_NAMES):
            raise UsageError(f"outcome {self.name!r}: {_EXPECTED}")
        if self.variant not in VARIANTS or self.where not in WHERES:
            raise UsageError(
                f"outcome {self.name!r}, variant {self.variant!r}, over {self.where!r}: {_EXPECTED}"
            )
        if not self.is_geometry and (self.where, self.variant) != ("prompt", "uncentred"):
            raise UsageError(f"outcome {self.name!r} has no window and no variant: {_EXPECTED}")
        if (self.layer is not None) != (self.name == "pr"):
            one = "needs a layer" if self.name == "pr" else "takes no layer"
            raise UsageError(f"outcome {self.name!r} {one}, got {self.layer!r}: {_EXPECTED}")
        if self.layer is not None:
            object.__setattr__(self, "layer", _layer_text(self.layer))

    @classmethod
    def parse(cls, text: str) -> Outcome:
        """The outcome that a text names. Raises UsageError for any other text."""
        if not isinstance(text, str):
            raise UsageError(f"outcome {text!r}: {_EXPECTED}")
        squeezed = "".join(text.split())
        for plain in _PLAIN_NAMES:
            if squeezed == plain:
                return cls(plain)
        match = _GRAMMAR.fullmatch(squeezed)
        if match is None or match[2] == "uncentred":
            raise UsageError(f"outcome {text!r}: {_EXPECTED}")
        for given, known in ((match[2], VARIANTS), (match[4], WHERES)):
            if given is not None and given not in known:
                raise UsageError(f"outcome {text!r}: {given!r} is not known; {_EXPECTED}")
        name: GeometryName = "pr" if match[1] == "pr" else "rv"
        variant: Variant = next((v for v in VARIANTS if v == match[2]), "uncentred")
        where: Where = next((w for w in WHERES if w == match[4]), "prompt")
        return cls(name, layer=match[3], where=where, variant=variant)

    def __str__(self) -> str:
        variant = "" if self.variant == "uncentred" else f"-{self.variant}"
        layer = "" if self.layer is None else f"@{self.layer}"
        where = "" if self.where == "prompt" else f"/{self.where}"
        return f"{self.name}{variant}{layer}{where}"

    @property
    def is_text(self) -> bool:
        """Whether it is scored on the generated text."""
        return self.name in TEXT_NAMES

    @property
    def is_likelihood(self) -> bool:
        """Whether it is read along what source and base generated, fed and not sampled."""
        return self.name in LIKELIHOOD_NAMES

    @property
    def behind(self) -> Behind | None:
        """What of the task's own it is read along, fed behind the prompt; None for all others."""
        if self.name in ANSWER_NAMES:
            return "answers"
        return "continuation" if self.name in CONTINUATION_NAMES else None

    @property
    def is_fed(self) -> bool:
        """Whether it is read from the logits of tokens that are fed, not sampled."""
        return self.is_likelihood or self.behind is not None

    @property
    def may_fall(self) -> bool:
        """Whether the source may have less of it than the base, as well as more."""
        return self.name in EITHER_WAY

    @property
    def is_geometry(self) -> bool:
        """Whether it is read from v_proj outputs."""
        return self.name in GEOMETRY_NAMES

    @property
    def unit(self) -> str:
        """What it is counted in."""
        return _UNITS[self.name]

    @property
    def formula(self) -> str:
        """How it is computed, in one line."""
        if not self.is_geometry:
            return _FORMULAS[self.name]
        ratio = _PR_FORMULAS[self.variant]
        if self.name == "pr":
            return f"PR = {ratio}"
        return f"R_V = PR at depth {LATE} / PR at depth {EARLY}, PR = {ratio}"

    def layers(self, n_layers: int) -> tuple[int, ...]:
        """Layers that are read: none for text and likelihood, (early, late) for 'rv'.

        Raises NoSuchCellError for a layer that the model does not have, and where both ends of R_V
        are one layer.
        """
        if self.name == "rv":
            early, late = (resolve_layers(depth, n_layers)[0] for depth in (EARLY, LATE))
            if early == late:
                raise NoSuchCellError(
                    f"outcome {self}: depths {EARLY} and {LATE} are both layer {early} of "
                    f"{n_layers}; expected a model of at least 2 layers"
                )
            return early, late
        return () if self.layer is None else resolve_layers(self.layer, n_layers)

    def rows(self, prompt_tokens: int, generated_tokens: int) -> range:
        """Positions of the window in prompt and generation counted through, 16 of them.

        prompt_tokens: T. generated_tokens: n, of which the model has read n-1, at positions
        T .. T+n-2; ignored for a window in the prompt.
        Raises UsageError where the window does not fit (it is never shortened), and for an outcome
        without one.
        """
        if not self.is_geometry:
            raise UsageError(f"outcome {self} has no window")
        stop, fit = prompt_tokens, prompt_tokens
        got = f"the prompt has {prompt_tokens}"
        if self.where == "generated":
            fit = generated_tokens - 1
            stop = prompt_tokens + fit
            got = f"{generated_tokens} were generated, of which the model has read {max(fit, 0)}"
        if fit < WINDOW:
            raise UsageError(
                f"outcome {self}: its window has {WINDOW} tokens, {got}; expected at least "
                f"{WINDOW + (self.where == 'generated')}"
            )
        return range(stop - WINDOW, stop)

    def describe(self, n_layers: int) -> dict[str, object]:
        """What the name stands for on a model of so many layers, for the evidence (plain JSON).

        `layers` is empty where the model does not have them.
        """
        said: dict[str, object] = {
            "name": str(self),
            "unit": self.unit,
            "formula": self.formula,
        }
        if self.is_geometry:
            said |= {
                "tensor": "v_proj output",
                "window": WINDOW,
                "layers": self._layers_if_any(n_layers),
                "span": self.where,
                "variant": self.variant,
            }
        return said

    def _layers_if_any(self, n_layers: int) -> list[int]:
        try:
            return list(self.layers(n_layers))
        except NoSuchCellError:
            return []


def _layer_text(text: str) -> str:
    """One spelling of a layer or a depth; UsageError for what is neither."""
    if not re.fullmatch(r"\d+(/\d+)?", text):
        raise UsageError(f"outcome layer {text!r}: {_EXPECTED}")
    # Any depth below 1 is a layer of a model of one layer.
    resolve_layers(text, 1 if "/" in text else int(text) + 1)
    return "/".join(str(int(number)) for number in text.split("/"))
