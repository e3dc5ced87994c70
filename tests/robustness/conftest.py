"""A small DL0 store with many shards."""

import numpy as np
import pytest

from astri_gpu.instrument.astri import mini_array
from astri_gpu.store import create
from astri_gpu.store_layout import write_layout

ROWS = 4  # in a shard


@pytest.fixture(scope="session")
def small_store():
    """Return a function that writes noise images, two an event, four in a shard (one chunk)."""

    def write(path, n_images=40, rows=ROWS):
        layout = mini_array()
        camera = layout.cameras[0]
        n_pixels, n_tels, name = camera.geometry.n_pixels, layout.n_telescopes, camera.name
        sizes = {"tel": n_tels, "gain": 2, "pixel": n_pixels}
        rng = np.random.default_rng(1)
        with create(path, attrs={"data_level": "DL0", "n_images": n_images}) as writer:
            write_layout(writer, layout)
            group = f"monitoring/camera/{name}"
            writer.write(group, "tel_id", layout.tel_id)
            constants = {
                "pedestal": 200.0,
                "pedestal_std": 3.0,
                "dc_to_pe": 0.1,
                "time_shift": 0.0,
                "pixel_valid": True,
            }
            for column, value in constants.items():
                writer.write(group, column, np.full((n_tels, 2, n_pixels), value))
            keys = ["event_index", "tel_id", "calibration_index", "pointing_alt", "pointing_az"]
            images = writer.table(
                f"dl0/image/{name}", [*keys, "adc"], sizes=sizes, rows_per_chunk=rows
            )
            images._columns["adc"].block = rows  # a shard of one chunk
            columns = ["obs_id", "event_id", "event_type", "array_alt", "array_az"]
            events = writer.table("dl0/event", columns, sizes=sizes)
            for first in range(0, n_images, rows):
                number = np.arange(first, min(first + rows, n_images))
                n = len(number)
                images.append(
                    {
                        "event_index": number // 2,
                        "tel_id": layout.tel_id[number % 2],
                        "calibration_index": (number % 2).astype("i4"),
                        "pointing_alt": np.full(n, 70.0),
                        "pointing_az": np.full(n, 180.0),
                        "adc": rng.integers(150, 900, (n, 2, n_pixels)).astype("u2"),
                    }
                )
                event = np.unique(number // 2)
                n = len(event)
                events.append(
                    {
                        "obs_id": np.ones(n, "i8"),
                        "event_id": event,
                        "event_type": np.full(n, 32, "u1"),
                        "array_alt": np.full(n, 70.0),
                        "array_az": np.full(n, 180.0),
                    }
                )

    return write
