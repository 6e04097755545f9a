"""Open-Sora 1.2's video autoencoder: config, layers, network, published weights."""
