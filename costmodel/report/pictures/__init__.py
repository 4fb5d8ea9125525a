"""What each figure shows: one module per kind, found by its name."""
