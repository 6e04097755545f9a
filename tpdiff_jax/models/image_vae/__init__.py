"""Stable Diffusion's image autoencoder: config, network, published weights."""
