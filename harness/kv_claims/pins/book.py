"""The pins of a run: those that its models have, those that it made, and writing them down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.evidence.schema import OWN_TABLE
from kv_claims.pins.file import PinFile, Place, load_pins, save
from kv_claims.pins.pin import Pin
from kv_claims.pins.update import updated


@dataclass
class PinBook:
    """Pins of the models of one run (planted models have none).

    root: the project, which pins name test files from. folder: of the pin files.
    task_of: the name of the task that a model runs; pins of its other tasks are let alone.
    updating: whether what was found is to be written down. unused: by model, pins of claims or
    cells that are not there any more. lines: what was done, for a reader.
    """

    root: Path
    folder: Path
    models: tuple[str, ...]
    revision: str | None
    updating: bool
    task_of: Callable[[str], str | None] = lambda _model: None
    unused: dict[str, list[Place]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    _files: dict[str, PinFile] = field(default_factory=dict)
    _fresh: dict[str, list[Pin]] = field(default_factory=lambda: defaultdict(list))
    _of_tables: dict[str, list[Pin]] = field(default_factory=lambda: defaultdict(list))
    _differs: dict[str, dict[Place, str]] = field(default_factory=lambda: defaultdict(dict))

    def of(self, model: str) -> PinFile | None:
        """The pins of a model on its task; None of a planted one.

        Raises UsageError for a file that is none.
        """
        if model not in self.models:
            return None
        if model not in self._files:
            self._files[model] = load_pins(self.folder, model, self.revision, self.task_of(model))
        return self._files[model]

    def of_tables(self, model: str) -> PinFile | None:
        """The pins of tables that tests made, on a model of this name; beside those of its task.

        Raises UsageError for a file that is none.
        """
        return load_pins(self.folder, model, None, OWN_TABLE)

    def check(self) -> None:
        """Raise UsageError for pin files that cannot be read, and for two models of one file."""
        if self.updating and not self.models:
            raise UsageError(
                "--claims-update: planted models have no pins, as what they should give is "
                "computed; expected another model"
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
                f"{found.path}: pins that no claim uses: {named}; expected claims and cells of "
                "these names, or --claims-update, which removes the pins"
            )
        self.unused[model] = unused

    def _is_gone(self, file: str, collected: Collection[str]) -> bool:
        """Whether a claim of this file that was not collected is nowhere any more.

        A file may have been renamed, so one that is gone says nothing before every test file
        beside it was collected. Nor does a file outside the project, which another machine lacks.
        """
        if file in collected:
            return True
        place = self.root / file
        if not place.resolve().is_relative_to(self.root.resolve()) or place.is_file():
            return False
        folder = Path(file).parent
        beside = {(folder / path.name).as_posix() for path in place.parent.glob("test_*.py")}
        return bool(beside) and beside <= set(collected)

    def add(self, made: Mapping[str, Any], *, failed: bool = False) -> None:
        """Take in what a test made for `--claims-update`: its `pin`, None if it must have none.

        failed: whether the test failed all the same, for something that is no verdict.
        """
        told = "; ".join([*made["changes"], *made["notes"]])
        if made["pin"] is None:
            self.lines.append(f"not pinned: {told}")
            return
        pin, model = Pin.from_dict(made["pin"]), made["model"]
        place = Place(pin.claim, pin.cell)
        if failed:
            self.lines.append(f"not pinned: {place}: its test failed")
            return
        of_table = pin.setup["task"] == OWN_TABLE
        (self._of_tables if of_table else self._fresh)[model].append(pin)
        self._differs[model][place] = told

    def drop(self, model: str, place: Place, why: str) -> None:
        """Take a fresh pin out again, where something came to light after its test."""
        fresh = self._fresh[model]
        self._fresh[model] = [pin for pin in fresh if Place(pin.claim, pin.cell) != place]
        if len(self._fresh[model]) < len(fresh):
            self.lines.append(f"not pinned: {place}: {why}")

    def break_off(self) -> None:
        """Note that nothing is written, as the run did not reach its end."""
        if self.updating and self.models:
            self.lines.append("pins: nothing was written, as the run was broken off")

    def write(self) -> None:
        """Write the pin files that change, each whole or not at all, and note it in `lines`."""
        for model in self.models if self.updating else ():
            kept = self.of(model)
            assert kept is not None
            self._files[model] = self._write(kept, self._fresh[model], model, "run")
        for model, fresh in self._of_tables.items():
            # One file may have both: it is read again once the first are written.
            kept = load_pins(self.folder, model, None, OWN_TABLE)
            self._write(kept, fresh, model, "judged on tables of their own")

    def _write(self, kept: PinFile, fresh: Sequence[Pin], model: str, how: str) -> PinFile:
        made = updated(kept, fresh, self.unused.get(model, []), self._differs[model])
        self.lines.append(
            f"pins in {kept.path}: {len(made.lines)} changed of {len(fresh)} that were {how}"
        )
        if made.lines:
            self.lines += (f"  {line}" for line in made.lines)
            save(made.file)
        return made.file
