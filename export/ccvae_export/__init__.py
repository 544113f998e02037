"""Split a trained CCVAE into graphs, check them against the model, and write a bundle."""
