"""Stereo events out of the events of single telescopes: clocks, coincidences, their quality."""
