"""Camera constants from pedestal and flat-field events."""
