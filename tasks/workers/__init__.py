"""The Ray actors themselves: vLLM engines, DeepSpeed ranks, and the proof that weights arrived.
Neither Prefect nor MLflow is imported here: these processes only compute."""
