"""What surrounds training: devices, checkpoints, optimizer, writers, media; no method."""
