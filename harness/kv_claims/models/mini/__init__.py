"""mini: a small model that was trained, not planted; its language, its recipe, its weights."""

from kv_claims.files.shipped import shipped

NAME = "mini"
FOLDER = shipped("models/mini")
"""Its weights."""
