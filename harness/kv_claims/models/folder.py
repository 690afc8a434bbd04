"""Which folder, or file, a model's name stands for."""

from __future__ import annotations

from pathlib import Path

from kv_claims.models import mini
from kv_claims.models.gguf import undone_folder
from kv_claims.models.packages import PACKAGED


def model_folder(name: str) -> Path | None:
    """That of the shipped model `mini`, of a fetched one, or whose path the name is; else None."""
    if name in PACKAGED:
        folder = undone_folder(PACKAGED[name].sha256)
    else:
        folder = mini.FOLDER if name == mini.NAME else Path(name)
    return folder if name and folder.is_dir() else None


def model_file(name: str) -> Path | None:
    """The GGUF file whose path the name is, there or not; else None."""
    path = Path(name)
    return path if path.suffix == ".gguf" and not path.is_dir() else None
