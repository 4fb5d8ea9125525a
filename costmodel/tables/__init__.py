"""Exact tables of a case over whole numbers: `costmodel.tabulate` and what it is made of."""
