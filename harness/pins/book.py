"""The pins of a run: those that its models have, those that it made, and writing them down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.pins.file import PinFile, Place, load_pins, save
from harness.pins.pin import Pin
from harness.pins.update import updated


@dataclass
class PinBook:
    """Pins of the models of one run (planted models have none).

    root: the project, which pins name test files from. folder: of the pin files.
    updating: whether what was found is to be written down. unused: by model, pins of claims or
    cells that are not there any more. lines: what was done, for a reader.
    """

    root: Path
    folder: Path
    models: tuple[str, ...]
    revision: str | None
    updating: bool
    unused: dict[str, list[Place]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    _files: dict[str, PinFile] = field(default_factory=dict)
    _fresh: dict[str, list[Pin]] = field(default_factory=lambda: defaultdict(list))
    _differs: dict[str, dict[Place, str]] = field(default_factory=lambda: defaultdict(dict))

    def of(self, model: str) -> PinFile | None:
        """The pins of a model; None of a planted one. Raises UsageError for a file that is none."""
        if model not in self.models:
            return None
        if model not in self._files:
            self._files[model] = load_pins(self.folder, model, self.revision)
        return self._files[model]

    def check(self) -> None:
        """Raise UsageError for pin files that cannot be read, and for two models of one file."""
        if self.updating and not self.models:
            raise UsageError(
                "--claims-update: planted models have no pins, as what they should give is "
                "computed; expected another --model"
            )
        owners: dict[Path, str] = {}
        for model in self.models:
            found = self.of(model)
            assert found is not None
            if (owner := owners.setdefault(found.path, model)) != model and (
                self.updating or found.pins
            ):
                raise UsageError(f"{found.path}: the pins of both {owner} and {model}")

    def look_for_unused(
        self, model: str, cells: Mapping[str, Collection[str]], files: Collection[str]
    ) -> None:
        """Note the pins that no claim uses.

        cells: by claim, all that this model has of it in the files that were collected, selected or
        not. Of other files nothing is said, unless they are gone.
        Raises UsageError where there are such pins, unless pins are being updated.
        """
        found = self.of(model)
        if found is None:
            return
        unused = [
            place
            for place, pin in found.pins.items()
            if (
                place.cell not in cells[place.claim]
                if place.claim in cells
                else self._is_gone(pin.test.partition("::")[0], files)
            )
        ]
        if unused and not self.updating:
            named = ", ".join(map(str, unused[:3])) + (", ..." if unused[3:] else "")
            raise UsageError(
                f"{found.path}: {len(unused)} pins that no claim uses ({named}); expected claims "
                "and cells of these names, or --claims-update, which removes the pins"
            )
        self.unused[model] = unused

    def _is_gone(self, file: str, collected: Collection[str]) -> bool:
        """Whether a file can no longer have a claim that was not collected."""
        return file in collected or not (self.root / file).is_file()

    def add(self, model: str, made: Mapping[str, Any]) -> None:
        """Take in what a test made for `--claims-update`: its `pin`, None if it must have none."""
        told = "; ".join([*made["changes"], *made["notes"]])
        if made["pin"] is None:
            self.lines.append(f"not pinned: {told}")
            return
        pin = Pin.from_dict(made["pin"])
        self._fresh[model].append(pin)
        self._differs[model][Place(pin.claim, pin.cell)] = told

    def write(self) -> None:
        """Write the pin files that change, each whole or not at all, and note it in `lines`."""
        for model in self.models if self.updating else ():
            kept = self.of(model)
            assert kept is not None
            fresh = self._fresh[model]
            made = updated(kept, fresh, self.unused.get(model, []), self._differs[model])
            self.lines.append(
                f"pins in {kept.path}: {len(made.lines)} changed of {len(fresh)} that were run"
            )
            if made.lines:
                self.lines += (f"  {line}" for line in made.lines)
                save(made.file)
                self._files[model] = made.file
