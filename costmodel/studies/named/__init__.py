"""The studies, one module each, found by name."""
