"""Step *machine*: hardware, driver, versions, and whether the device does the least there is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from kv_claims.benching.gpu.steps import Finding, Findings, Given

PACKAGES = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pandas"),
    *("pyarrow", "matplotlib", "pytest", "pytest-xdist", "hypothesis", "jinja2", "pyyaml"),
    *("tqdm", "msgspec", "filelock", "regex", "accelerate", "gguf", "nnsight"),
    "transformer-lens",
)


def run(given: Given) -> Findings:
    yield Finding("driver", None, _nvidia_smi())
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    yield Finding(
        "versions",
        None,
        [
            f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}, "
            f"{os.cpu_count()} cores",
            ", ".join(f"{name} {version}" for name, version in versions.items() if version),
            f"not here: {', '.join(missing) or 'nothing'}",
        ],
        {"python": platform.python_version(), "cores": os.cpu_count(), "packages": versions},
    )
    import torch

    yield _device(torch.device(given.device))


def _device(device: Any) -> Finding:
    import torch

    about: dict[str, Any] = {
        "device": str(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "capability_of_cpu": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        of = torch.cuda.get_device_properties(device)
        free, whole = torch.cuda.mem_get_info(device)
        about |= {
            "name": of.name,
            "capability": f"{of.major}.{of.minor}",
            "processors": of.multi_processor_count,
            "memory": whole,
            "free": free,
            "built_for": torch.cuda.get_arch_list(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    apart = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(256, 256, generator=generator).to(dtype) for _ in "ab")
        wanted = left.double() @ right.double()
        found = (left.to(device) @ right.to(device)).double().cpu()
        apart[str(dtype)] = float((found - wanted).abs().max() / wanted.abs().max())
    # TF32 would be 1e-3 and would change tokens in float32.
    good = apart["torch.float64"] < 1e-12 and apart["torch.float32"] < 1e-5
    lines = [f"{name}: {value}" for name, value in about.items()]
    lines.append(f"a product differs from float64 on the host by {apart}")
    return Finding("device", good, lines, {**about, "product_apart": apart})


def _nvidia_smi() -> list[str]:
    try:
        ran = subprocess.run(
            ["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"nvidia-smi: {error}"]
    return (ran.stdout + ran.stderr).splitlines()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
