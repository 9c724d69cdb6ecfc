"""A picture whose object is known, what is to be said about it, and why a file is none."""

import io
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

_NOTE = "sdfsrn"  # the text chunk of a stored picture


class ImageError(ValueError):
    """A picture that cannot be used; `field` says which part it came in, `too_large` whether its size in bytes is why."""

    def __init__(self, field: str, reason: str, *, too_large: bool = False) -> None:
        super().__init__(reason)
        self.field = field
        self.too_large = too_large

    def __reduce__(self) -> tuple[Any, ...]:
        # it comes out of the process that decodes
        return _image_error, (self.field, str(self), self.too_large)


def _image_error(field: str, reason: str, too_large: bool) -> ImageError:
    return ImageError(field, reason, too_large=too_large)


@dataclass(frozen=True)
class PictureWarning:
    """Something that may make an answer wrong: `code` for programs, `message` says what was seen and what to do."""

    code: str
    message: str


@dataclass(frozen=True)
class Picture:
    """`rgb` uint8 (height, width, 3) and `mask` bool (height, width), true on the object.

    `reduced` says how many pixels of the file became one when it was read, across and down.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    reduced: tuple[float, float] = (1.0, 1.0)
    warnings: tuple[PictureWarning, ...] = ()

    def to_png(self) -> bytes:
        """One RGBA file whose alpha is the mask; `from_png` reads it back with everything else that is known."""
        rgba = np.dstack([self.rgb, self.mask.astype(np.uint8) * 255])
        note = PngImagePlugin.PngInfo()
        known = {"reduced": self.reduced, "warnings": [asdict(warning) for warning in self.warnings]}
        note.add_text(_NOTE, json.dumps(known))
        buffer = io.BytesIO()
        Image.fromarray(rgba).save(buffer, format="PNG", compress_level=1, pnginfo=note)
        return buffer.getvalue()

    @classmethod
    def from_png(cls, data: bytes) -> "Picture":
        """What `to_png` wrote; files of users are for `read_picture`."""
        with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
            rgba = np.asarray(opened.convert("RGBA"))
            known = json.loads(opened.info.get(_NOTE, "{}"))
        across, down = known.get("reduced", (1.0, 1.0))
        warnings = tuple(PictureWarning(**warning) for warning in known.get("warnings", ()))
        return cls(rgba[..., :3], rgba[..., 3] > 127, (across, down), warnings)
