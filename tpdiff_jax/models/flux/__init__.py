"""The Flux transformer on videos: config, blocks, network, axes, published weights."""
