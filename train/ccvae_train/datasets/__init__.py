"""Data sets: each reader checks its files, then gives memory-mapped uint8 arrays and int8 labels."""
