"""The commands of `python -m harness`, one module each: NAME, HELP, add_options, run."""
