"""Train a CCVAE: labels, data sets, networks, objectives and the loop. Importing the package imports no torch."""
