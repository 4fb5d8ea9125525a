"""From measured timings to calibration files: readers, fits, validation."""
