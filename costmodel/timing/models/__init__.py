"""Time models, one module each; `costmodel.timing.model` finds them by name."""
