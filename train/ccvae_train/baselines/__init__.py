"""The models that CCVAE is compared with, each with its own objective (docs/baselines.md)."""
