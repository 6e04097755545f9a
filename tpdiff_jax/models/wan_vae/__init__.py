"""Wan's causal video autoencoder: config, layers, network, published weights."""
