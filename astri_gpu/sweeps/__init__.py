"""What sweeps share: the cache of stages, the table of results, and its report."""
