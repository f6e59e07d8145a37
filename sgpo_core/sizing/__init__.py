"""What a run needs, by arithmetic: memory of every device, host memory, disk, seconds. From settings, the shape of a
model and the figures of a GPU alone: nothing is loaded, nothing is measured."""
