"""What it takes to run a study again: versions, hardware, hashes and settings."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

import torch

from kv_claims.models.tokens import Tokenization
from kv_claims.process.cores import usable_cores
from kv_claims.run.runner import Runner
from kv_claims.tasks.task import Pair, Task

IGNORED = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "repetition_penalty", "no_repeat_ngram_size"),
    *("num_beams", "min_length", "min_new_tokens", "max_length", "max_new_tokens", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
)
"""Settings of a model's own generation config that are not followed, and recorded as such."""


def provenance(runner: Runner, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Versions, hardware, hashes and settings of a run on some pairs, as plain JSON."""
    model = runner.model
    generation = model.network.generation_config.to_diff_dict()
    device = (
        torch.cuda.get_device_name(model.device)
        if model.device.type == "cuda"
        else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    )
    return {
        "python": platform.python_version(),
        "versions": {
            name: metadata.version(name)
            for name in (
                *("torch", "transformers", "tokenizers"),
                *("numpy", "scipy", "pandas", "pytest"),
                *("regex", "icu4py"),  # by which words are told apart
            )
        },
        "device": str(model.device),
        "hardware": device,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "dtype": model.dtype_name,
        # The rounding that tolerances allow for.
        "precision": model.precision,
        "n_layers": model.n_layers,
        "n_kv_heads": model.n_kv_heads,
        "n_query_heads": model.n_query_heads,
        "revision": model.revision,
        "weights_sha": runner.weights_sha,
        # What transformers left out, put in or guessed when the model was loaded.
        "loading": model.loading.to_dict(),
        **({"file": model.file.to_dict()} if model.file else {}),
        "task_sha": runner.task.sha,
        "tokens": _tokens(model.tokenization, runner.task, pairs),
        "sampling": {
            **asdict(runner.sampling),
            "rule": "inverse CDF over the full vocabulary, common random numbers",
            "ignored": {k: str(v) for k, v in generation.items() if k in IGNORED},
        },
        "batch_size": runner.batch_size or "auto",
        # By which route batches are decoded, and why by no faster one (kv_claims.run.routes).
        "decoding": runner.route._asdict(),
    }


def _tokens(how: Tokenization, task: Task, pairs: Sequence[Pair]) -> dict[str, Any]:
    """How prompts became tokens, those of some pairs counted, each once."""
    prompts = {side.sha: side for pair in pairs for side in (pair.source, pair.base)}.values()
    chat = {"chat": how.chat.describe(prompts)} if task.has_messages else {}
    return {**how.describe(), **chat, **how.in_prompts(prompts)}
