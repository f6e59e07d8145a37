"""Is the final answer right? Hostile text is compared in killable child processes.
No rewards and no credit: a grade says what became of the answer, and nothing more."""
