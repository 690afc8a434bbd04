"""Figures of a report, one module a kind; each takes plain data from `kv_claims.report.view`."""
