"""Cuts: weighted events, their optimisation, and the files of cuts."""
