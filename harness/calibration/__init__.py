"""How often the judging is wrong: many independent studies of a known truth, judged.

No part of a judged claim; nothing imports it but the command line.
"""
