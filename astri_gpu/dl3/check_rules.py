"""What the check of GADF files finds: its rules, by name, and a finding.

The rules are those of the "Data formats for gamma-ray astronomy", version 0.3. What the format
demands is an error; what it recommends, or what readers trip over, is a warning.
"""

from dataclasses import dataclass, replace

__all__ = ["ERROR", "RULES", "WARNING", "Finding", "Notes"]

ERROR, WARNING = "error", "warning"

RULES: dict[str, tuple[str, str]] = {
    # the file as a FITS file
    "file-unreadable": (ERROR, "the file can be opened and is a FITS file"),
    "file-truncated": (ERROR, "the file is as long as its headers say"),
    "hdu-damaged": (ERROR, "the HDU can be read"),
    "fits-standard": (WARNING, "headers keep to the FITS standard"),
    "checksum": (ERROR, "CHECKSUM and DATASUM, where given, agree with the content"),
    "no-gadf-hdu": (ERROR, "the file holds at least one table of the format"),
    # headers
    "hduclas-missing": (ERROR, "every table says what it is: HDUCLASS and HDUCLAS1 to HDUCLAS4"),
    "hduclas-value": (ERROR, "HDUCLASS and HDUCLAS1 to HDUCLAS4 are a chain of the format"),
    "hduclas2-psf": (WARNING, "HDUCLAS2 of a point spread function is RPSF"),
    "hduvers": (WARNING, "HDUVERS is 0.3"),
    "keyword-missing": (ERROR, "mandatory keywords are there"),
    "keyword-type": (ERROR, "keywords have the type of the format"),
    "keyword-value": (ERROR, "keywords have a value that the format allows"),
    "keyword-pair": (WARNING, "keywords that belong together are there together"),
    "time-reference": (ERROR, "tables of a file count time from the same moment"),
    "date-obs": (WARNING, "DATE-OBS and DATE-END are TSTART and TSTOP, to 70 s"),
    # columns
    "column-missing": (ERROR, "mandatory columns are there"),
    "column-type": (ERROR, "columns have the type of the format"),
    "column-width": (WARNING, "whole numbers have 64 bits where the format says so"),
    "column-unit": (ERROR, "units are there, and can be converted to those of the format"),
    "column-unit-other": (WARNING, "units are those of the format"),
    "unit-spelling": (WARNING, "units are spelt as the FITS standard says"),
    "column-shape": (ERROR, "cells have the shape that the axes give"),
    "axis-order": (WARNING, "axes are in the recommended order"),
    "axis-value": (ERROR, "edges of axes are finite and can be (energy above 0, angle not below)"),
    "axis-bounds": (ERROR, "lower edges lie below upper ones"),
    "axis-rising": (ERROR, "axes rise"),
    "axis-gap": (WARNING, "bins of axes adjoin"),
    "row-count": (ERROR, "a response is a table of one row"),
    "value-nan": (ERROR, "values are finite"),
    "value-negative": (ERROR, "values are not negative where they cannot be"),
    # responses
    "edisp-norm": (WARNING, "the energy dispersion integrates to one"),
    "psf-norm": (WARNING, "the point spread function integrates to one"),
    "thresholds": (ERROR, "LO_THRES lies below HI_THRES"),
    "rad-max-missing": (WARNING, "point-like responses come with RAD_MAX"),
    "enclosure-mixed": (ERROR, "responses of a file are all point-like or all full-enclosure"),
    "hdu-twice": (WARNING, "a file holds one table of a kind"),
    # events, intervals, pointing
    "events-empty": (WARNING, "there are events"),
    "event-id-twice": (ERROR, "event numbers are unique"),
    "event-time-order": (WARNING, "events are in order of time"),
    "event-time-range": (ERROR, "events lie between TSTART and TSTOP"),
    "event-outside-gti": (ERROR, "events lie in the good time intervals"),
    "event-value": (ERROR, "times, directions and energies are finite, energies above 0"),
    "ra-range": (ERROR, "right ascensions are 0 to 360 deg"),
    "dec-range": (ERROR, "declinations are -90 to 90 deg"),
    "tstart-tstop": (ERROR, "TSTART lies before TSTOP"),
    "ontime": (ERROR, "ONTIME is the sum of the good time intervals"),
    "livetime": (ERROR, "LIVETIME is ONTIME times DEADC"),
    "gti-missing": (WARNING, "an event list comes with its good time intervals"),
    "gti-empty": (ERROR, "there is at least one good time interval"),
    "gti-length": (ERROR, "good time intervals begin before they end"),
    "gti-order": (ERROR, "good time intervals are in order of time"),
    "gti-overlap": (ERROR, "good time intervals do not overlap"),
    "gti-range": (ERROR, "good time intervals lie between TSTART and TSTOP"),
    "pointing-order": (WARNING, "pointings are in order of time"),
    # index files
    "index-path": (ERROR, "index files name files relative to themselves"),
    "index-file": (ERROR, "files of the index are there"),
    "index-hdu": (ERROR, "tables of the index are in their files"),
    "index-kind": (ERROR, "HDU_TYPE and HDU_CLASS are of the format and fit the table"),
    "index-obs-id": (ERROR, "numbers of observations agree between indices and headers"),
    "index-twice": (ERROR, "the index names a table of an observation once"),
    "index-value": (ERROR, "the index agrees with the headers of event lists"),
    "index-size": (WARNING, "SIZE of the index is that of the file"),
    "index-md5": (ERROR, "MD5 of the index is that of the file"),
}
"""Severity, and what is asked for, of every rule."""


@dataclass(frozen=True)
class Finding:
    """A place of a file that does not keep to a rule."""

    severity: str
    """"error" or "warning"."""
    rule: str
    """A key of `RULES`."""
    file: str
    hdu: str
    """Number and name, empty for the file as a whole."""
    where: str
    """Keyword, column, or column and row; empty for the table as a whole."""
    text: str
    """What was found and what is asked for, in a sentence."""


@dataclass(frozen=True)
class Notes:
    """Collects findings of one place."""

    file: str
    hdu: str
    found: list[Finding]

    def inside(self, hdu: str) -> "Notes":
        """Return the notes of a table, which end up in the same list."""
        return replace(self, hdu=hdu)

    def __call__(self, rule: str, where: str, text: str) -> None:
        """Write down that `where` breaks a rule."""
        severity = RULES[rule][0]
        self.found.append(Finding(severity, rule, self.file, self.hdu, where, text))
