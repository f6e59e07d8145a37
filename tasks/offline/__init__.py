"""Offline training: the stages that get a data set ready, its batches, its statistics.
Reading and checking of sources is in sgpo_core/offline."""
