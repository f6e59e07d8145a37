"""Benchmarks as data: protocols with ids, scores, and whether a policy has become worse.
No generation and no engines."""
