"""Kernel time models: pure functions of shapes, a chip and fitted parameters."""
