"""Stored trials, judged again: a run of ours, or a table that somebody else published."""
