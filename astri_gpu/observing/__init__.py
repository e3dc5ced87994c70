"""Simulated observation runs: showers of a night, clocks, triggers, camera packets."""
