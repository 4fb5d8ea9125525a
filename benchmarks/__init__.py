"""Scripts that measure; some share what lies in `benchmarks.loop`."""
