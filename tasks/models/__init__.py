"""Models by name: where they lie on this machine, whether they came from the Hugging Face hub or were made here.
Nothing here starts an engine or knows what a model is for."""
