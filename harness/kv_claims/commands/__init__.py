"""The commands of `kv-claims`, one module each: NAME, HELP, add_options, run."""
