"""Output folders, here or behind URLs: files appear whole or not at all, one run at a time."""
