"""Supervised training with a gate: warm starts of small policies, and judges.
One loop for both; what they are trained on is in sgpo_core."""
