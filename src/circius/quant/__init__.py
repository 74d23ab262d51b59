"""Weights in fewer bits: rounding, with and without compensation of its errors, and which weight gets how many."""
