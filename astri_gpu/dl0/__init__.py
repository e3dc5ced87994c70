"""Files of an observation run: names, description, DL0, stereo events, constants (FITS)."""
