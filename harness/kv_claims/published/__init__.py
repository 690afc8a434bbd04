"""The seed's procedure with its defects, replayed: what each of them does to the numbers.

Not a claim and not an instrument check: nothing here is judged, and none of its trials reaches the
ledger. `defects` names them, `scoring` and `engine` carry them out, `replay` turns them off one by
one, `sample` explains the seed's best cell.
"""
