"""Ray actors that are started once: which run, generation on them, weights to them, nothing left after a kill -9.
No stage of a run and no MLflow; the actors' own code is in workers/."""
