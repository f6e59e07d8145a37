"""What is on disk: atomic files, the folder of a run, rollouts.parquet, folders of weights.
One place for each format; no network."""
