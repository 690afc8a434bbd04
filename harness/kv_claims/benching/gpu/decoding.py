"""A step of decoding on a GPU, by both routes, against the bytes that it has to read.

A Mistral-7B-shaped model with random weights: how long a step takes does not depend on what they
are. The *floor* of a step is its weights and the cache that is filled at that step, read once at
the measured rate of a copy. A second bound stands beside it, the products at the measured rate of
the model's largest one: with some hundred rows it is the higher of the two, and no engine comes
nearer to the floor than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import build
from kv_claims.patch.memory import Memory
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.store import PromptStore, bytes_a_position
from kv_claims.planted.made import plain_mistral
from kv_claims.run.batch_size import is_out_of_memory
from kv_claims.run.decode import decode
from kv_claims.run.routes import Kind, Route, route_of
from kv_claims.run.sampling_settings import Sampling

ARMS = 8
"""Rows that start from one prompt."""


class Work(NamedTuple):
    """What is measured. copied: bytes of the copy that gives the bandwidth."""

    config: dict[str, Any]
    rows: tuple[int, ...]
    prompts: tuple[int, ...]
    new_tokens: int
    copied: int


MISTRAL = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
FULL = Work(MISTRAL, (128, 256, 512), (64, 128), 100, 2 << 30)
SMALL = Work(
    {
        **MISTRAL,
        "vocab_size": 500,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    (8, 40),
    (12,),
    10,
    1 << 20,
)
"""Too small to say anything: for trying the command out."""


class Rates(NamedTuple):
    """Bytes (read and written) and multiply-adds a second."""

    bytes: float
    macs: float


class Row(NamedTuple):
    """Milliseconds of a step of so many rows behind prompts of so many tokens.

    routes: by route; None where memory ran out. floor: of bytes. products: of multiply-adds.
    """

    rows: int
    prompt: int
    routes: dict[Kind, float | None]
    floor: float
    products: float

    @property
    def ratio(self) -> float | None:
        """The static route's step in floors."""
        step = self.routes.get("static")
        return None if step is None else step / self.floor


def measure(device: str | None, *, small: bool, rounds: int) -> dict[str, Any]:
    """Step times of both routes, floor and ratio, as lines and data.

    device: None takes a GPU where there is one. small: another shape, which runs anywhere.
    Raises UsageError for the whole work on a CPU.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type != "cuda" and not small:
        raise UsageError(
            f"bench --gpu: device {place}, expected a CUDA device; --small tries the command out"
        )
    work = SMALL if small else FULL
    model = model_of(work, place)
    route = route_of(model, "static")
    rates = measure_rates(model, work)
    found = [
        _row(model, route, work, rows, prompt, rates, rounds)
        for prompt in work.prompts
        for rows in work.rows
    ]
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "a CPU"
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    lines = [
        f"random Mistral-shaped model, {parameters / 1e9:.2f} G weights, {model.dtype_name}, on "
        f"{name}; {work.new_tokens} new tokens; sampling is part of a step",
        f"a copy moves {rates.bytes / 1e9:.0f} GB/s, the largest product does "
        f"{rates.macs / 1e12:.2f} T multiply-adds/s",
    ]
    if small or place.type != "cuda":
        lines.append(
            "THESE NUMBERS SAY NOTHING ABOUT A GPU AT WORK: they show that the command runs"
        )
    if route.kind != "static":
        lines.append(f"the static route is not taken: {route.reason}")
    lines += [
        "rows  prompt  plain ms  static ms  floor ms  static/floor  products ms",
        *(
            f"{row.rows:4}  {row.prompt:6}  {_shown(row.routes.get('plain')):>8}  "
            f"{_shown(row.routes.get('static')):>9}  {row.floor:8.3f}  {_shown(row.ratio):>12}  "
            f"{row.products:11.3f}"
            for row in found
        ),
    ]
    return {
        "lines": lines,
        "device": name,
        "torch": torch.__version__,
        "small": small,
        "route": route._asdict(),
        "rates": rates._asdict(),
        "steps": [{**row._asdict(), "ratio": row.ratio} for row in found],
    }


def model_of(work: Work, device: torch.device) -> LoadedModel:
    """The model, its weights made where and as they are used: in float32 they would take 29 GB."""
    config = plain_mistral(
        **work.config,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with device:
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return LoadedModel(
        name="random",
        network=network.eval(),
        tokenizer=None,
        device=device,
        dtype=torch.bfloat16,
        revision=None,
    )


def measure_rates(model: LoadedModel, work: Work) -> Rates:
    """The best of some copies, and of some products of the MLP's matrix."""
    # Ones: memory that was never written to is read faster than it can be.
    taken, given = (torch.ones(work.copied, dtype=torch.uint8, device=model.device) for _ in "ab")
    copy = _best(lambda: taken.copy_(given), model.device)
    config, most = model.config, max(work.rows)
    rows, weight = (
        torch.randn(n, config.hidden_size, dtype=model.dtype, device=model.device)
        for n in (most, config.intermediate_size)
    )
    product = _best(lambda: torch.nn.functional.linear(rows, weight), model.device)
    macs = most * config.hidden_size * config.intermediate_size
    return Rates(2 * work.copied / copy, macs / product)


def bounds(
    model: LoadedModel, rows: int, prompt: int, steps: int, rates: Rates
) -> tuple[float, float]:
    """Seconds of a step by bytes and by multiply-adds, on average over the steps."""
    config = model.config
    embedding = model.network.get_input_embeddings().weight
    # Of the embedding a row reads one line.
    weights = sum(p.numel() for p in model.network.parameters()) - embedding.numel()
    filled = prompt - 1 + (steps + 1) / 2
    head, layers = config.hidden_size // config.num_attention_heads, config.num_hidden_layers
    attention = rows * filled * 2 * config.num_attention_heads * head * layers
    read = weights * embedding.element_size() + rows * filled * bytes_a_position(model)
    return read / rates.bytes, (rows * weights + attention) / rates.macs


def _row(
    model: LoadedModel,
    route: Route,
    work: Work,
    rows: int,
    prompt: int,
    rates: Rates,
    rounds: int,
) -> Row:
    floor, products = bounds(model, rows, prompt, work.new_tokens, rates)
    store = PromptStore(model)
    generator = torch.Generator().manual_seed(1)
    bases = torch.randint(model.config.vocab_size, (-(-rows // ARMS), prompt), generator=generator)
    store.add(bases.tolist())
    plans = [RowPlan(store.index(base), prompt) for base in bases.tolist() for _ in range(ARMS)]
    kinds: tuple[Kind, ...] = ("plain", "static") if route.kind == "static" else ("plain",)
    timed: dict[Kind, float | None] = {}
    for kind in kinds:
        try:
            timed[kind] = 1e3 * _step(store, plans[:rows], kind, work.new_tokens, rounds)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            timed[kind] = None
        torch.cuda.empty_cache()
    return Row(rows, prompt, timed, 1e3 * floor, 1e3 * products)


def _step(store: PromptStore, plans: list[RowPlan], kind: Kind, steps: int, rounds: int) -> float:
    """Seconds of a step: the best round's, after one that records and warms up."""
    memory = Memory() if kind == "static" else None
    first = [store.tokens[plan.prompt][-1] for plan in plans]
    uniform = torch.full((len(plans), steps), 0.5, dtype=torch.float64)
    best = float("inf")
    for number in range(rounds + 1):
        slab = build(store, plans, None, headroom=steps, memory=memory).slab
        seconds = _timed(
            partial(decode, store.model, slab, first, uniform, Sampling(steps)),
            store.model.device,
        )
        if number:
            best = min(best, seconds / steps)
        del slab  # two of them need not fit
    return best


def _best(way: Callable[[], object], device: torch.device, times: int = 20) -> float:
    way()
    return min(_timed(way, device) for _ in range(times))


def _timed(way: Callable[[], object], device: torch.device) -> float:
    """Seconds on the clock, with all that the device was given to do."""
    _finish(device)
    started = time.perf_counter()
    way()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"
