"""What changes parameters: the optimizer, the guard against bad steps, what is trained."""
