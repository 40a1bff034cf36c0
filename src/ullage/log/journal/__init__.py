"""The writer's end of the disk: segments, one sync a batch, recovery, and what is made from it again."""
