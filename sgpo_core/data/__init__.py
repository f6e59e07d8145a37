"""Problem sets of any source, and how responses are cut into steps.
No grading and no judging: only texts and where they come from."""
