"""The truth file of a simulated run (FITS): what the packets do not say.

| HDU | a row per | columns |
|---|---|---|
| TRUTH | science packet | TEL, EVT_CTR, EVENT (number of the shower), TRUE_NS |
| SHOWERS | shower that triggered | EVENT, KIND, ENERGY, ALT, AZ, COREX, COREY, TIME_NS |
| CLOCKS | telescope | TEL, OFFSET, DRIFT, JUMP, JUMP_S |

Times are ns from START of the primary header (UTC seconds since 2020-01-01). A shower whose
telescopes were all in their dead time has no row in TRUTH.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.observing.clocks import Clocks
from astri_gpu.observing.triggers import Showers

__all__ = ["write_truth"]

TRUTH = (
    ("TEL", "I", None, "telescope number"),
    ("EVT_CTR", "K", None, "number of the event in its telescope"),
    ("EVENT", "K", None, "number of the shower"),
    ("TRUE_NS", "K", "ns", "trigger"),
)
SHOWERS = (
    ("EVENT", "K", None, "number of the shower"),
    ("KIND", "J", None, "0 gamma, 1 electron, 101 proton, 402 helium"),
    ("ENERGY", "E", "TeV", "of the primary"),
    ("ALT", "D", "deg", "where it comes from"),
    ("AZ", "D", "deg", "North over East"),
    ("COREX", "D", "m", "North"),
    ("COREY", "D", "m", "West"),
    ("TIME_NS", "K", "ns", "its front passes the core"),
)
CLOCKS = (
    ("TEL", "I", None, "telescope number"),
    ("OFFSET", "D", "ns", "clock less true time, at the start"),
    ("DRIFT", "D", "ns/s", "growth of the offset"),
    ("JUMP", "D", "ns", "added after JUMP_S"),
    ("JUMP_S", "D", "s", "from the start"),
)


def write_truth(
    path: Path,
    cards: Mapping[str, tuple[Any, str]],
    truth: Sequence[Any],
    showers: Showers | None,
    clocks: Clocks,
) -> None:
    """Write the truth of a run.

    Parameters
    ----------
    path
        Of the new file.
    cards
        Of the primary header, name -> (value, comment).
    truth
        Columns of TRUTH, see `Readout.truth`.
    showers
        Those that triggered; None if none did.
    clocks
        Of the telescopes.
    """
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    for key, (value, comment) in cards.items():
        primary.header[key] = (value, comment)
    columns = Showers._make(np.empty(0) for _ in Showers._fields) if showers is None else showers
    tables = {
        "TRUTH": (TRUTH, truth),
        "SHOWERS": (SHOWERS, columns),
        "CLOCKS": (
            CLOCKS,
            (
                clocks.tel_id,
                clocks.offset_ns,
                clocks.drift_ns_per_s,
                clocks.jump_ns,
                clocks.jump_s,
            ),
        ),
    }
    hdus = [primary]
    for name, (described, values) in tables.items():
        hdu = fits.BinTableHDU.from_columns(
            [
                fits.Column(name=column, format=form, unit=unit, array=value)
                for (column, form, unit, _), value in zip(described, values, strict=True)
            ],
            name=name,
        )
        for place, (_, _, _, comment) in enumerate(described, start=1):
            hdu.header.comments[f"TTYPE{place}"] = comment
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(path)
