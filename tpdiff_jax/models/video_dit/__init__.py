"""The video DiT: config, network, axes of its parameters."""
