"""Many runs compared: how they are started and retried, their report and its pictures.
What the numbers mean is in sgpo_core/analysis."""
