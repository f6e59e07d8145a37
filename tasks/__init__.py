"""What flows are made of: the stages of an iteration in the files here, and the parts that they need in the folders.
Logic that needs no engine, server or folder of a run belongs in sgpo_core."""
