"""The causal video autoencoder: config, layers, network, published weights."""
