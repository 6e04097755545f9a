"""Measures of generated videos against real ones, one file per idea."""
