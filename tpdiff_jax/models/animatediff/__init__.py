"""Stable Diffusion's U-Net with motion modules: config, layers, network, weights."""
