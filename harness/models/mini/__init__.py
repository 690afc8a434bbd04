"""mini: a small model that was trained, not planted; its language, its recipe, its weights."""

from pathlib import Path

NAME = "mini"
FOLDER = Path(__file__).parents[3] / "claims/models/mini"
"""Its weights, where this project is run from its checkout."""
