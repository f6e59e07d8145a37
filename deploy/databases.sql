-- Beside `prefect`, which PostgreSQL's image makes itself.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
