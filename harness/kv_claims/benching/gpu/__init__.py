"""What is measured once a GPU is at hand: `make gpu`, step by step, each question answered apart.

`steps` lists them, `run` runs them, `report` shows what they found; what travels to a machine
without network is packed by `pack` and unpacked by `brought`. These import the standard library
alone: a machine that lacks a package still says so, and runs what it can. docs/gpu.md.
"""
