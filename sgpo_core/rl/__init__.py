"""The method: credit, rewards, advantages, losses, batches; all as functions of records and settings.
No files, no engines, no model; what is measured of finished runs is in analysis/."""
