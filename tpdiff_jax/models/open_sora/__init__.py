"""Open-Sora's transformers STDiT (1.0) and STDiT3 (1.2): config, blocks, network, axes, weights."""
