"""pytest in this process, with its time and the most memory that it took: `--to FILE -- ARGS`."""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from kv_claims.files.atomic import replace


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kv_claims.benching.gpu.measured")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("arguments", nargs="+")
    asked = parser.parse_args()
    import pytest

    started = time.monotonic()
    status = int(pytest.main(asked.arguments))
    seconds = time.monotonic() - started
    import torch

    on_gpu = torch.cuda.is_available()
    found = {
        "status": status,
        "seconds": round(seconds, 1),
        # ru_maxrss is in KiB on Linux.
        "host_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "gpu_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "gpu_reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
    }
    text = json.dumps(found)
    replace(asked.to, lambda beside: beside.write_text(text, encoding="utf-8"))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
