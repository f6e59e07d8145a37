"""The embedded task: generated additions, a tiny policy for them, and solutions with a known first error.
Nothing that works for other problems, too, belongs here."""
