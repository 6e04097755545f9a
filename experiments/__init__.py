"""Measurements on top of the package: grids of training runs and what they show side by side."""
