"""From DL3 to detection, spectrum, maps and light curve, with Gammapy."""
