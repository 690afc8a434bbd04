"""The reference work by neighbours, timed in turn with the engine: `make bench-peers`.

Runs in an environment of its own, `.venv-peers/`, where the neighbours are installed in the
versions of `tests/benchmarks/peers-constraints.txt`. Not tests: nothing that pytest collects
imports a neighbour. `ways`, `agreement` and `report` need none of them and are tested in
`tests/benching/test_peers.py`.
"""
