"""The compression methods, one module each; `costmodel.compression.method` finds them by name."""
