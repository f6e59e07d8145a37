"""Models by name: where they lie on this machine, whether they came from the Hugging Face hub or were made here, and
whether one can be the policy. Nothing here starts an engine."""
