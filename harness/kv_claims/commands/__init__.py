"""The commands of `python -m kv_claims`, one module each: NAME, HELP, add_options, run."""
