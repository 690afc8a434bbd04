"""How mini is made: trained on its language, on one thread, in some minutes; and its task.

`kv-claims mini DIR` runs it and writes a model folder like any other (config,
safetensors, tokenizer, its task). `claims/models/mini` was written so. Another machine's rounding
gives other weights of the same kind, not the same bits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch.nn.functional import cross_entropy
from transformers import MistralConfig, MistralForCausalLM

from kv_claims.models.mini.language import (
    REGISTERS,
    STOP,
    Register,
    lexicon,
    prompt,
    text,
    vocabulary,
)
from kv_claims.planted.made import plain_mistral, word_tokenizer
from kv_claims.tasks.load import OWN_TASK

STEPS, BATCH, WORDS, SEED = 2400, 32, 96, 0
RATE, WARM_UP = 3e-3, 100
PROMPTS = 60

Told = Callable[[int, float], None]
"""Called with the number of a step and its loss, nats a word."""


def train(steps: int = STEPS, *, seed: int = SEED, told: Told | None = None) -> MistralForCausalLM:
    """A model trained for so many steps of 32 texts of 96 words; float32, in eval mode."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    number = {word: i for i, word in enumerate(vocabulary())}
    network = MistralForCausalLM(_config())
    rule = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        rule, RATE, total_steps=max(steps, 2), pct_start=min(0.3, WARM_UP / max(steps, 1))
    )
    for step in range(steps):
        texts = [text(draw.choice(REGISTERS), WORDS, draw) for _ in range(BATCH)]
        ids = torch.tensor([[number[word] for word in one] for one in texts])
        logits = network(input_ids=ids[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        rule.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        rule.step()
        rates.step()
        if told is not None:
            told(step, loss.item())
    return network.eval()


def write(network: MistralForCausalLM, folder: Path) -> None:
    """The model, its tokenizer and its task, as a folder; half precision, to be small."""
    network.to(torch.float16).save_pretrained(folder)
    word_tokenizer(vocabulary(), unknown=STOP).save_pretrained(folder)
    content = yaml.safe_dump(task(), sort_keys=False, allow_unicode=True, width=100)
    (folder / OWN_TASK).write_text(content, encoding="utf-8")


def task(seed: int = 1) -> dict[str, object]:
    """The task as its YAML file has it: texts of the one register against texts of the other."""
    draw = random.Random(seed)
    sources, bases = (
        [_prompt(register, n, draw) for n in range(PROMPTS)] for register in REGISTERS
    )
    return {
        "schema": 1,
        "name": "two_registers",
        "about": (
            "Sources open in words of the harbor, bases in words of the kitchen; both go on in "
            "neutral words, and stop where a text of the training returns to its register. The "
            "behavior is how many words of the harbor the continuation has."
        ),
        "scorer": "lexicon",
        "pairing": "one-to-one",
        "lexicon": list(lexicon(REGISTERS[0])),
        "sources": sources,
        "bases": bases,
    }


def _prompt(register: Register, number: int, draw: random.Random) -> dict[str, str]:
    """Its family is the first word of the register that it has."""
    words = prompt(register, draw)
    own = lexicon(register)
    family = next((word for word in words if word in own), register)
    return {"id": f"{register}-{number:02}", "family": family, "text": " ".join(words)}


def _config() -> MistralConfig:
    return plain_mistral(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
