"""mini: a small model that was trained, not planted; its language, its recipe, its weights."""
