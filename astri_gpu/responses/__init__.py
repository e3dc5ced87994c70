"""Instrument response functions: from selected events to IRF2, IRF3 and curves."""
