"""How fast the engine is: reference work, timed in turn with what it is held against."""
