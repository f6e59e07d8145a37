"""What finished runs say: metrics and their dictionary, curves, comparisons, statistics, exact theory.
Reads records; decides nothing that a run does."""
