"""MLflow, which is imported here alone: runs, the model registry, and what POLICY stands for.
Everything else hands over plain values."""
