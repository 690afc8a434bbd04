"""What is asked of a model: prompts in pairs, and how a generated text is scored."""

from kv_claims.tasks.load import load_task
from kv_claims.tasks.task import Pair, Prompt, Task

__all__ = ["Pair", "Prompt", "Task", "load_task"]
