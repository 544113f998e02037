"""The paper's protocols: each a function of arrays, and `evaluate`, which runs them over trained models."""
