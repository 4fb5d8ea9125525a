"""Configurations of known models, one JSON file each; read them with `importlib.resources`."""
