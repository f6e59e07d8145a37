"""Prefect's server and worker and MLflow on loopback: make up, make down, and who is told of a regression.
No flow is started here."""
