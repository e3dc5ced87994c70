"""The stage `display`: pictures of one event."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.errors import AstriError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from astri_gpu.config import DisplayConfig
    from astri_gpu.display.scene import EventScene

__all__ = ["Summary", "run"]


@dataclass(frozen=True)
class Summary:
    """The picture that was made."""

    path: Path
    obs_id: int
    event_id: int
    n_images: int
    n_shown: int

    @property
    def line(self) -> str:
        """Return file, event and images in one line."""
        of_all = f" of {self.n_images}" if self.n_shown < self.n_images else ""
        return (
            f"display: {self.path} shows event {self.event_id} of observation {self.obs_id}, "
            f"{self.n_shown}{of_all} {'image' if self.n_images == 1 else 'images'}"
        )


def run(config: "DisplayConfig") -> Summary:
    """Draw one event into a PNG file.

    Raises
    ------
    UsageError
        When the picture exists already, its name is none of a PNG file, or the store does not have
        the event.
    AstriError
        When the input is not a store, has nothing to draw, or the picture cannot be written.
    """
    from astri_gpu.display.figure import MOST_IMAGES, event_figure
    from astri_gpu.display.scene import choose_event, find_event, read_event
    from astri_gpu.store import open_store

    _check_output(Path(config.output), config.overwrite)
    store = open_store(config.input)
    if config.event_id is None:
        row = choose_event(store, config.obs_id)
    else:
        row = find_event(store, config.event_id, config.obs_id)
    event = read_event(store, row, pixels=config.what != "array")
    if config.what != "array" and not event.images:
        raise AstriError(
            f"Event {event.event_id} of {store.path} has no images: choose another event_id, or "
            "draw what=array."
        )
    path = _picture_path(Path(config.output), config.what, event)
    _check_output(path, config.overwrite)
    _save(event_figure(event, config.what, config.dpi), path)
    n_shown = len(event.images) if config.what == "array" else min(len(event.images), MOST_IMAGES)
    return Summary(path, event.obs_id, event.event_id, len(event.images), n_shown)


def _is_folder(output: Path) -> bool:
    return output.is_dir() or not output.suffix


def _picture_path(output: Path, what: str, event: "EventScene") -> Path:
    if _is_folder(output):
        return output / f"{what}_{event.obs_id}_{event.event_id}.png"
    return output


def _check_output(output: Path, overwrite: bool) -> None:
    if _is_folder(output):
        if output.is_file():
            raise UsageError(f"The output {output} is a file, but its name does not end in .png.")
        if (output / "zarr.json").exists():
            raise UsageError(f"The output {output} is a store: write the picture elsewhere.")
        return
    if output.suffix.lower() != ".png":
        raise UsageError(
            f"The output {output} ends in '{output.suffix}', but pictures are PNG files: give a "
            "name that ends in .png, or a directory."
        )
    if output.exists() and not overwrite:
        raise UsageError(f"The picture {output} exists already: set overwrite=true to replace it.")


def _save(figure: "Figure", path: Path) -> None:
    """Write the picture; it appears under its name only when it is complete."""
    from matplotlib import rc_context

    from astri_gpu.display.style import STYLE

    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Fonts and colours are looked up when the text is drawn.
            with rc_context(STYLE), partial.open("wb") as stream:
                figure.savefig(
                    stream, format="png", dpi="figure", metadata={"Software": "astri_gpu"}
                )
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise AstriError(
            f"The picture {path} cannot be written ({error.strerror or error}): choose another "
            "output or free space."
        ) from error
