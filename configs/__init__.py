"""Configs: each module has get_config() and imports ml_collections (or another config) only."""
