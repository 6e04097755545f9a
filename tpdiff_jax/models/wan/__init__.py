"""Wan2.1's text-to-video transformer: config, blocks, network, axes, published weights."""
