"""Readers of timing files, one module per format."""
