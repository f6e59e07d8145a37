"""Responses that exist already: read, checked, grouped by problem, stored in shards, counted.
No training; no stage of a run."""
