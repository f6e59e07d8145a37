"""What people look at: colored traces, the demo's and the theory's tables, and one way to plot and to print tables.
Nothing here changes a run."""
