"""What a user may send, and how the object is found in it."""

import io
import resource

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw

from sdfsrn.images import ImageError, Picture, crop_box, crop_shares, crop_to_radius, mask_circle, read_picture

BALL = (20, 10, 60, 50)


def _encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _picture(mode: str = "RGBA", background: object = (0, 0, 0, 0)) -> Image.Image:
    image = Image.new(mode, (96, 64), background)
    ImageDraw.Draw(image).ellipse(BALL, fill=(200, 90, 40, 255)[: len(mode)])
    return image


GOOD = _encoded(_picture())
BAD = {
    "empty": b"",
    "text": b"hello, I am a picture",
    "cut off": GOOD[: len(GOOD) // 2],
    "gif": _encoded(Image.new("L", (64, 64)), "GIF"),
    "too many pixels": _encoded(Image.new("1", (6500, 6500))),
    "too small": _encoded(Image.new("RGBA", (8, 64))),
    "nothing in it": _encoded(Image.new("RGBA", (64, 64))),
    "plain": _encoded(Image.new("RGB", (64, 64), "white")),
    "full": _encoded(Image.new("LA", (64, 64), (9, 200))),
    "no plain background": _encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))),
    "too many bytes": b"\0" * 20_000_001,
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_pictures_are_refused(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_picture(BAD[name])
    assert caught.value.field == "image"
    assert caught.value.too_large == (name == "too many bytes")


def test_mask_of_another_size_is_refused_by_its_name() -> None:
    with pytest.raises(ImageError) as caught:
        read_picture(GOOD, _encoded(Image.new("L", (64, 64), 255)))
    assert caught.value.field == "mask"


@pytest.mark.parametrize(
    ("kind", "mode", "background"),
    [
        ("PNG", "RGBA", (0, 0, 0, 0)),
        ("WEBP", "RGBA", (0, 0, 0, 0)),
        ("PNG", "RGBA", (250, 250, 250, 255)),
        ("JPEG", "RGB", (250, 250, 250)),
    ],
)
def test_alpha_opaque_alpha_and_plain_background_find_the_ball(kind: str, mode: str, background: object) -> None:
    x, y, radius = mask_circle(read_picture(_encoded(_picture(mode, background), kind)).mask)
    assert abs(x - 40.5) < 1
    assert abs(y - 30.5) < 1
    assert abs(radius - 20.5) < 1.5


def test_mask_beats_alpha() -> None:
    mask = np.zeros((64, 96), dtype=np.uint8)
    mask[5:15, 70:90] = 255
    assert (read_picture(GOOD, _encoded(Image.fromarray(mask))).mask == (mask > 0)).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_picture(_encoded(_picture(), exif=exif)).mask
    assert (turned == np.rot90(read_picture(GOOD).mask, -1)).all()


def test_crop_has_the_radius_and_the_centre() -> None:
    x, y, radius = mask_circle(crop_to_radius(read_picture(GOOD), 0.25, 64).mask)
    assert abs(radius - 16) < 0.5
    assert abs(x - 32) < 0.6
    assert abs(y - 32) < 0.6


def _padded_crop(picture: Picture, mask_radius: float, size: int) -> Picture:
    """The same by the book: the picture padded as far as the square reaches, and averaged in one piece."""
    left, top, right, bottom = crop_box(picture, mask_radius)
    height, width = picture.mask.shape
    pad = int(np.ceil(max(0.0, -left, -top, right - width, bottom - height))) + 1
    box = (left + pad, top + pad, right + pad, bottom + pad)
    rgba = np.dstack([picture.rgb * picture.mask[..., None], picture.mask * np.uint8(255)])
    parts = [Image.fromarray(np.pad(rgba[..., i], pad)).resize((size, size), Image.Resampling.BOX, box=box) for i in range(4)]
    crop = np.stack(parts, axis=-1)
    return Picture(crop[..., :3], crop[..., 3] > 127)


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_that_reaches_beyond_the_picture_is_as_if_that_were_black(seed: int) -> None:
    generator = np.random.default_rng(seed)
    width, height = generator.integers(32, 400, 2)
    rgb = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    shape = Image.new("L", (width, height))
    # nothing symmetric, in which pixels could lie exactly between two cells and belong to either
    ImageDraw.Draw(shape).polygon([tuple(corner) for corner in (generator.random((7, 2)) * [width, height]).tolist()], fill=255)
    picture = Picture(rgb, np.asarray(shape) > 0)
    mask_radius = float(generator.choice([0.05, 0.2, 0.3, 0.5, 0.75]))
    found, expected = crop_to_radius(picture, mask_radius, 64), _padded_crop(picture, mask_radius, 64)
    assert (found.mask != expected.mask).sum() <= 1
    assert np.abs(found.rgb.astype(int) - expected.rgb).max() <= 1


@pytest.mark.parametrize("inside", [slice(1, -1), slice(0, 300)])
def test_a_tiny_mask_radius_takes_little_memory(inside: slice) -> None:
    mask = np.zeros((1024, 1024), dtype=np.bool_)
    mask[inside, inside] = True
    picture = Picture(np.full((1024, 1024, 3), 200, dtype=np.uint8), mask)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 100_000_000, limits[1]))
    try:
        crop = crop_to_radius(picture, 0.02, 64)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert mask_circle(crop.mask)[:2] == (32, 32) and 0 < crop.mask.sum() <= 9 and crop.rgb[32, 32].min() > 150


def test_sixteen_bits_of_grey_are_scaled_not_cut_off() -> None:
    grey = np.full((64, 96), 600, dtype=np.uint16)
    grey[10:50, 20:60] = 50_000
    deep = _encoded(Image.fromarray(grey))
    as_mask = read_picture(_encoded(Image.new("RGB", (96, 64), "blue")), deep).mask
    assert (as_mask == (grey > 30_000)).all()
    as_picture = read_picture(deep)
    assert as_picture.mask[30, 40] and not as_picture.mask[2, 2]
    assert as_picture.rgb[30, 40].tolist() == [195, 195, 195]


def test_large_pictures_are_reduced_and_turned_upright() -> None:
    image = Image.new("RGB", (2400, 1201), "white")
    ImageDraw.Draw(image).rectangle((100, 100, 600, 600), fill="red")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 90 degrees clockwise to see it so
    found = read_picture(_encoded(image, "JPEG", exif=exif, quality=95))
    assert found.mask.shape == (1024, 512)
    assert found.reduced == (1201 / 512, 2400 / 1024)
    y, x = np.nonzero(found.mask)
    assert abs(x.mean() - (1200 - 350) * 512 / 1200) < 4 and abs(y.mean() - 350 * 1024 / 2400) < 4


def test_the_crop_is_told_in_shares_that_hold_for_the_file_that_was_sent() -> None:
    """A disc of a quarter of the width, whose middle is at three quarters of it, in files that are read in full and reduced."""
    for width in (400, 4000):
        image = Image.new("RGBA", (width, width // 2))
        box = (width * 5 // 8, width // 8, width * 7 // 8, width * 3 // 8)
        ImageDraw.Draw(image).ellipse(box, fill=(200, 100, 50, 255))
        # the disc's radius is a quarter of the crop's side: half the picture's width, all of its height
        assert crop_shares(read_picture(_encoded(image)), 0.25) == pytest.approx((0.5, 0.0, 1.0, 1.0), abs=0.01)
