"""Seconds per operator: the device, the interface of a time model, the models."""
