"""One module per convention; `costmodel.conventions.load_convention` finds them by name."""
