"""Pins: what a run found of each claim on a model, kept in git, against which later runs are held.

    pin.py      what is kept of one cell
    check.py    a fresh cell against its pin: as pinned, moved, undecided, not compared
    file.py     one file a model and revision: its name, its form, and what is wrong with one
    update.py   what `--claims-update` writes, and the difference in words

Planted models have no pins: what they should give is computed.
"""
