"""The measuring harness: cases in, timings with their spread in the tidy schema out.

::

    suites -> Case (what to time) -> Inputs (random, larger than the cache) -> clock (samples)
           -> store (journal, parquet) ; runner drives, machine says where it ran

Nothing here imports torch before something is timed, so that a command line can list the
suites without it.
"""
