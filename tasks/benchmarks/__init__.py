"""A policy on benchmarks: generate, grade, score, record; every night for all registered models.
Evaluation inside of a training run is tasks/evaluation.py."""
