"""Judges at work: the kinds there are, endpoints, the verdict cache, judging while others are generated, judge-eval.
How a prompt is worded and read is in sgpo_core/judges."""
