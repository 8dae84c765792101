"""Measuring a trained encoder: features, exact neighbours, k-NN."""
