"""What surrounds training: devices, checkpoints, optimizer, writers, media. Nothing of the method."""
