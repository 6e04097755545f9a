"""Stable Diffusion's U-Net with motion modules: config, network, axes, published weights.

The network is put together from `layers` and `transformers`, its cost from `flops`; `weights` are
named by the table of `weight_rows`.
"""
