"""Stable Diffusion's U-Net with motion modules: config, layers, network, published weights.

What it shares with other U-Nets stands in `unet`; `weights` are named by the table of
`weight_rows`.
"""
