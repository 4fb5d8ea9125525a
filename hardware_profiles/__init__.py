"""Datasheet profiles of GPUs, one YAML file each; read them with `importlib.resources`."""
