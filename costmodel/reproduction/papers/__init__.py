"""One module per paper; `costmodel.reproduction.load_paper` finds them by name."""
