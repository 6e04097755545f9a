"""Videos from a checkpoint: opening it, prompts, files."""
