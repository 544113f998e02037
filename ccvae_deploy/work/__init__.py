"""How a folder is worked through: a run settled before it begins, batches, reading ahead, Ray."""
