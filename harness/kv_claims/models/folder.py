"""Which folder a model's name stands for."""

from __future__ import annotations

from pathlib import Path

from kv_claims.models import mini


def model_folder(name: str) -> Path | None:
    """That of the shipped model `mini`, or the one that the name is the path of; else None."""
    folder = mini.FOLDER if name == mini.NAME else Path(name)
    return folder if name and folder.is_dir() else None
