"""Prefect flows: wiring, no logic. Each runs as `python -m flows.NAME` (`commands` lists them) and as a deployment
(prefect.yaml).

They may import `tasks`, `sgpo_core.config` and Prefect; nothing imports them.
"""
