"""Where a product comes from: the chain of steps back to the raw files."""
