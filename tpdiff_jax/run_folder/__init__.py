"""What a run keeps in its folder: checkpoints, their manifests, the saved config."""
