"""What finished runs say: curves, means over seeds, speed-ups, intervals."""
