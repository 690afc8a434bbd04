"""How often the judging is wrong: many independent studies of a known truth, judged.

No part of a judged claim; nothing imports it but the command line.
"""

STUDIES, NETWORK_STUDIES = 10_000, 2_000
"""Of each cell, and of the cell that runs the network, unless asked otherwise."""
