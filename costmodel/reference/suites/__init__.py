"""What is measured: one module per suite, each with its ``SUITE``, found by its name.

A module whose name begins with an underscore is shared by suites.  Modules import torch where
they run something, so that suites can be listed without it.
"""
