"""What it takes to run a study again: versions, hardware, hashes and settings."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib import metadata
from typing import Any

import torch

from harness.run.runner import Runner

IGNORED = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "repetition_penalty", "no_repeat_ngram_size"),
    *("num_beams", "min_length", "min_new_tokens", "max_length", "max_new_tokens", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
)
"""Settings of a model's own generation config that are not followed, and recorded as such."""


def provenance(runner: Runner) -> dict[str, Any]:
    """Versions, hardware, hashes and settings of a run, as plain JSON."""
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
                *("torch", "transformers", "numpy", "scipy", "pandas", "pytest"),
                *("regex", "icu4py"),  # by which words are told apart
            )
        },
        "device": str(model.device),
        "hardware": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": model.dtype_name,
        "n_layers": model.n_layers,
        "n_kv_heads": model.n_kv_heads,
        "revision": model.revision,
        "weights_sha": model.weights_sha,
        "task_sha": runner.task.sha,
        "sampling": {
            **asdict(runner.sampling),
            "rule": "inverse CDF over the full vocabulary, common random numbers",
            "ignored": {k: str(v) for k, v in generation.items() if k in IGNORED},
        },
        "batch_size": runner.batch_size or "auto",
        # By which road batches are decoded, and why by no faster one (harness.run.roads).
        "decoding": runner.road._asdict(),
    }
