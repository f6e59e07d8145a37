"""Who finds the first wrong step: the rule judge, prompts and parsing for language models, and how good a judge is.
No engine and no server: what asks a model is in tasks/judges."""
