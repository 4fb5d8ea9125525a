"""Runnable torch implementations of what the cost model describes, and what times them.

The folder stands alone: nothing in it imports the rest of the library, so that a copy of it runs
wherever torch is installed.  Nothing outside it imports it.
"""
