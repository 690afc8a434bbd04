"""A model of the hub as a folder: what is read of it is fetched, and then treated like any other.

The small files come first, so that a wrong name or an odd configuration costs no download; of the
weights those come that the index names. Needs no network where the hub's cache has them already.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from kv_claims.models.contents import CONFIG, INDEX, WEIGHTS, small_json

_SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]


def snapshot(name: str, revision: str | None) -> Path:
    """The folder of a model's files, in the hub's cache; its name is the commit.

    Raises whatever the hub's library raises.
    """
    folder = Path(snapshot_download(name, revision=revision, allow_patterns=_SMALL))
    named = small_json(folder, CONFIG).get("transformers_weights")
    if named is None:
        named = INDEX if (folder / INDEX).exists() else WEIGHTS
    wanted = [str(named)]
    if wanted[0].endswith(".index.json"):
        index = small_json(folder, wanted[0]).get("weight_map")
        wanted = sorted({str(file) for file in index.values()}) if isinstance(index, dict) else []
    # By the commit that was found: the name of a branch may have moved meanwhile.
    return Path(snapshot_download(name, revision=folder.name, allow_patterns=[*_SMALL, *wanted]))
