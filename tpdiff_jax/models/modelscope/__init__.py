"""ModelScope's text-to-video network: config, layers, network, published weights.

What it shares with other U-Nets stands in `unet`.
"""
