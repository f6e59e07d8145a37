"""Pure logic: no Prefect, Ray, vLLM, DeepSpeed or MLflow is imported anywhere below (torch only where tensors are).
What starts processes, talks to servers or holds a run together is in tasks/."""
