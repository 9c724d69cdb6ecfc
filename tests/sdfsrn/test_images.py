"""What a user may send, and how the object is found in it."""

import io
import json
import resource
import struct
import zlib
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from PIL import Image, ImageCms, ImageDraw, ImageFilter, PngImagePlugin

from sdfsrn.images import (
    ImageError,
    Picture,
    PictureWarning,
    crop_box,
    crop_shares,
    crop_to_radius,
    mask_circle,
    read_picture,
)

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
    left, top, right, bottom = crop_box(picture.mask, mask_radius)
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


SIDE = 160
Mask = np.ndarray


def _shape(side: int = SIDE) -> Mask:
    """An object that is nowhere symmetric, drawn large and reduced: the truth of what follows."""
    image = Image.new("L", (side * 4, side * 4))
    draw = ImageDraw.Draw(image)
    draw.ellipse([part * side / 64 for part in (70, 50, 190, 200)], fill=255)
    draw.rectangle([part * side / 64 for part in (120, 30, 210, 105)], fill=255)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX)) > 127


SHAPE = _shape()
ON_WHITE = np.where(SHAPE[..., None], np.uint8([190, 110, 60]), np.uint8(255))
PLAIN = _encoded(Image.fromarray(ON_WHITE))
BLUE = _encoded(Image.new("RGB", (SIDE, SIDE), "blue"))


def _iou(found: Mask, truth: Mask) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def _codes(picture: Picture) -> list[str]:
    return [warning.code for warning in picture.warnings]


def _rgba(alpha: Mask, rgb: Mask = ON_WHITE) -> bytes:
    return _encoded(Image.fromarray(np.dstack([rgb, alpha.astype(np.uint8)])))


def _grey(values: Mask) -> bytes:
    return _encoded(Image.fromarray(values.astype(np.uint8)))


def _textured(seed: int = 0, truth: Mask = SHAPE) -> bytes:
    """The shape, shaded, before a blurred, noisy background of many colours."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(0, 25, (SIDE // 8, SIDE // 8, 3)) + np.array([100, 140, 90])
    background = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    light = np.linspace(0.7, 1.1, SIDE)[:, None, None]
    rgb = np.where(truth[..., None], np.array([205, 70, 60]) * light, np.asarray(background))
    noisy = (rgb + generator.normal(0, 4, rgb.shape)).clip(0, 255).astype(np.uint8)
    return _encoded(Image.fromarray(noisy), "JPEG", quality=92)


def test_a_stored_picture_comes_back_with_all_that_is_known_of_it() -> None:
    warnings = (PictureWarning("cut_off", "at the top [sic] \u00e9"), PictureWarning("segmented", "look"))
    picture = Picture(ON_WHITE, SHAPE, (2.5, 3.0), warnings)
    again = Picture.from_png(picture.to_png())
    assert (again.rgb == ON_WHITE).all() and (again.mask == SHAPE).all()
    assert (again.reduced, again.warnings) == (picture.reduced, warnings)


def test_what_a_user_writes_into_a_file_is_no_warning_of_ours() -> None:
    note = PngImagePlugin.PngInfo()
    note.add_text("sdfsrn", json.dumps({"reduced": [9, 9], "warnings": [{"code": "a", "message": "b"}]}))
    found = read_picture(_encoded(_picture(), pnginfo=note))
    assert found.warnings == () and found.reduced == (1.0, 1.0)


def _one_pixel_at_254() -> Mask:
    alpha = np.full((SIDE, SIDE), 255)
    alpha[0, 0] = 254
    return alpha


def _rounded(radius: int) -> Mask:
    image = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(image).rounded_rectangle((0, 0, SIDE - 1, SIDE - 1), radius, fill=255)
    return np.asarray(image)


def _rim(width: int) -> Mask:
    return np.pad(np.full((SIDE - 2 * width, SIDE - 2 * width), 255), width)


@pytest.mark.parametrize(
    "alpha",
    [_one_pixel_at_254(), np.full((SIDE, SIDE), 251), np.full((SIDE, SIDE), 180), _rounded(4), _rounded(16), _rim(1), _rim(3)],
    ids=["one pixel", "nearly opaque", "evenly translucent", "corners", "large corners", "rim", "wider rim"],
)
def test_alpha_that_outlines_nothing_counts_as_none(alpha: Mask) -> None:
    found = read_picture(_rgba(alpha))
    assert _iou(found.mask, SHAPE) > 0.99 and found.warnings == ()
    black = np.where((alpha < 128)[..., None], np.uint8(0), ON_WHITE)  # the colour that nobody sees
    assert _iou(read_picture(_rgba(alpha, black)).mask, SHAPE) > 0.99


@pytest.mark.parametrize("lines", [[(3, 0)], [(1, 0)], [(2, 0), (1, 200)], [(4, 90)]])
def test_a_thin_frame_is_no_background(lines: list[tuple[int, int]]) -> None:
    rgb = ON_WHITE.copy()
    depth = 0
    for width, level in lines:
        inner = rgb[depth : SIDE - depth, depth : SIDE - depth]
        inner[:width] = inner[-width:] = level
        inner[:, :width] = inner[:, -width:] = level
        depth += width
    found = read_picture(_encoded(Image.fromarray(rgb)))
    assert _iou(found.mask, SHAPE) > 0.99 and found.warnings == ()


def test_a_box_that_leaves_a_thin_margin_is_no_frame() -> None:
    box = np.pad(np.ones((SIDE - 8, SIDE - 8), dtype=bool), 4)
    found = read_picture(_encoded(Image.fromarray(np.where(box[..., None], np.uint8([0, 90, 200]), np.uint8(255)))))
    assert _iou(found.mask, box) > 0.99


def test_a_speck_far_away_moves_nothing_and_leaves_near_by_stay() -> None:
    speck, leaf = SHAPE.copy(), SHAPE.copy()
    speck[SIDE - 6 : SIDE - 2, 2:6] = True
    row = int(np.nonzero(SHAPE.any(axis=1))[0].max()) + 3
    column = int(np.nonzero(SHAPE[row - 3])[0].mean())
    leaf[row : row + 3, column : column + 3] = True
    for send in (lambda mask: read_picture(_rgba(mask * 255)), lambda mask: read_picture(BLUE, _grey(mask * 255))):
        assert (send(speck).mask == SHAPE).all()
        assert (send(leaf).mask == leaf).all()


def test_several_objects_are_kept_if_they_were_outlined_and_warned_about_always() -> None:
    both = SHAPE.copy()
    both[100:150, 8:30] = True
    picture = np.where(both[..., None], np.uint8([20, 20, 200]), np.uint8(255))
    for found, kept in [
        (read_picture(_rgba(both * 255)), both),
        (read_picture(BLUE, _grey(both * 255)), both),
        (read_picture(_encoded(Image.fromarray(picture))), SHAPE),
        (read_picture(_textured(truth=both)), SHAPE),
    ]:
        assert _iou(found.mask, kept) > 0.93 and "several_objects" in _codes(found)
    assert _codes(read_picture(PLAIN)) == []


@pytest.mark.parametrize(("by", "side"), [((0, 45), "left"), ((0, -60), "right"), ((40, 0), "top"), ((-50, 0), "bottom")])
def test_an_object_that_the_border_cuts_off_is_warned_about(by: tuple[int, int], side: str) -> None:
    down, across = by
    cut = np.roll(np.pad(SHAPE, SIDE), (-down, -across), (0, 1))[SIDE : 2 * SIDE, SIDE : 2 * SIDE]
    rgb = np.where(cut[..., None], np.uint8([190, 110, 60]), np.uint8(255))
    sent = [(_rgba(cut * 255), None), (BLUE, _grey(cut * 255)), (_encoded(Image.fromarray(rgb)), None)]
    for found in (read_picture(*files) for files in sent):
        assert _iou(found.mask, cut) > 0.98 and _codes(found) == ["cut_off"]
        assert f"({side})" in found.warnings[0].message


def test_a_picture_trimmed_to_a_round_object_does_not_cut_it_off() -> None:
    for diameter in (40, 150, 900):
        disc = Image.new("L", (diameter, diameter))
        ImageDraw.Draw(disc).ellipse((0, 0, diameter - 1, diameter - 1), fill=255)
        assert _codes(read_picture(_encoded(Image.merge("LA", [disc, disc])))) == []


def test_a_large_hole_that_shows_the_background_stays_one_and_is_told_of() -> None:
    ring = SHAPE.copy()
    ring[70:100, 60:90] = False
    dark = np.where(SHAPE[..., None], np.uint8([60, 90, 60]), np.uint8(250))
    seen_through, white_part, small = dark.copy(), dark.copy(), dark.copy()
    seen_through[~ring] = 250
    white_part[70:100, 60:90] = 240
    small[80:84, 70:74] = 250
    found = read_picture(_encoded(Image.fromarray(seen_through)))
    assert _iou(found.mask, ring) > 0.99 and _codes(found) == ["hole"]
    for solid in (white_part, small):
        found = read_picture(_encoded(Image.fromarray(solid)))
        assert _iou(found.mask, SHAPE) > 0.99 and _codes(found) == []


@pytest.mark.parametrize("seed", range(3))
def test_before_any_background_the_object_is_segmented_and_that_is_told(seed: int) -> None:
    photo = _textured(seed)
    found = read_picture(photo)
    assert _iou(found.mask, SHAPE) > 0.95 and _codes(found) == ["segmented"]
    assert (read_picture(photo, background="segment").mask == found.mask).all(), "not twice the same"


@pytest.mark.parametrize("background", ["plain", "none"])
def test_nothing_is_looked_for_that_background_does_not_allow(background: str) -> None:
    with pytest.raises(ImageError, match=f"background={'segment' if background == 'plain' else 'none'}"):
        read_picture(_textured(), background=background)  # type: ignore[arg-type]
    assert (read_picture(_rgba(SHAPE * 255), background=background).mask == SHAPE).all()  # type: ignore[arg-type]


def test_a_plain_background_may_be_segmented_too() -> None:
    found = read_picture(PLAIN, background="segment")
    assert _iou(found.mask, SHAPE) > 0.97 and _codes(found) == ["segmented"]
    with pytest.raises(ImageError):
        read_picture(PLAIN, background="none")


def _palette(colours: list[int]) -> bytes:
    image = Image.fromarray(SHAPE.astype(np.uint8), "L").convert("P")
    image.putdata(SHAPE.astype(np.uint8).ravel().tolist())
    image.putpalette(colours + [0] * (768 - len(colours)))
    return _encoded(image)


MASKS: dict[str, Callable[[], bytes]] = {
    "0 and 255": lambda: _grey(SHAPE * 255),
    "0 and 1": lambda: _grey(SHAPE),
    "3 and 7": lambda: _grey(SHAPE * 4 + 3),
    "0 and 128": lambda: _grey(SHAPE * 128),
    "16 bits, 0 and 1": lambda: _encoded(Image.fromarray(SHAPE.astype(np.uint16))),
    "16 bits, 0 and 65535": lambda: _encoded(Image.fromarray(SHAPE.astype(np.uint16) * 65535)),
    "1 bit": lambda: _encoded(Image.fromarray(SHAPE)),
    "palette, black and dark red": lambda: _palette([0, 0, 0, 128, 0, 0]),
    "palette, white and black": lambda: _palette([0, 0, 0, 255, 255, 255]),
    "red on black": lambda: _encoded(Image.fromarray(SHAPE[..., None] * np.uint8([255, 0, 0]))),
    "alpha": lambda: _rgba(SHAPE * 255),
    "alpha of 0 and 1": lambda: _rgba(SHAPE),
    "grey with opaque alpha": lambda: _encoded(Image.fromarray(np.dstack([SHAPE * 255, SHAPE * 0 + 255]).astype(np.uint8))),
    "JPEG": lambda: _encoded(Image.fromarray(SHAPE.astype(np.uint8) * 255), "JPEG", quality=60),
    "JPEG, red on black": lambda: _encoded(Image.fromarray(SHAPE[..., None] * np.uint8([255, 0, 0])), "JPEG", quality=85),
    "soft outline": lambda: _encoded(Image.fromarray(SHAPE.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(2))),
}


@pytest.mark.parametrize("kind", list(MASKS))
def test_a_mask_of_two_levels_is_understood_however_they_are_written(kind: str) -> None:
    found = read_picture(BLUE, MASKS[kind]())
    assert _iou(found.mask, SHAPE) > (0.97 if "JPEG" in kind or "soft" in kind else 0.9999) and _codes(found) == []


BANDS = np.repeat([0, 1, 2], [60, 50, 50])[:, None] * np.ones(SIDE, dtype=int)
COLOURS = np.uint8([[0, 0, 0], [255, 0, 0], [0, 255, 0]])[BANDS]
BAD_MASKS: dict[str, tuple[bytes, str]] = {
    "all black": (_grey(SHAPE * 0), "outlines nothing: it has the colour 0 everywhere"),
    "all white": (_grey(SHAPE * 0 + 255), "outlines nothing: it has the colour 255 everywhere"),
    "all black, 16 bits": (_encoded(Image.fromarray(SHAPE.astype(np.uint16) * 0)), "the value 0 everywhere"),
    "labels": (_grey(BANDS), "3 values, 0, 1, 2; two are expected"),
    "spread labels": (_grey(BANDS * 127), "3 values, 0, 127, 254"),
    "coloured labels": (_encoded(Image.fromarray(COLOURS)), "3 values, 0, (0, 255, 0), (255, 0, 0)"),
    "ramp": (_grey(np.linspace(0, 255, SIDE)[None] * np.ones((SIDE, 1))), "not black and white"),
    "photograph": (_textured(), "not black and white"),
    "noise": (_grey(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE))), "not black and white"),
}


@pytest.mark.parametrize("kind", list(BAD_MASKS))
def test_a_mask_that_is_none_is_described_as_a_mask(kind: str) -> None:
    mask, said = BAD_MASKS[kind]
    with pytest.raises(ImageError) as caught:
        read_picture(BLUE, mask)
    assert caught.value.field == "mask" and said in str(caught.value), caught.value
    assert "picture" not in str(caught.value)


def test_a_mask_that_is_black_on_white_is_turned_round_and_that_is_told() -> None:
    found = read_picture(BLUE, _grey(~SHAPE * 255))
    assert (found.mask == SHAPE).all() and _codes(found) == ["mask_inverted"]


def test_limits_hold_at_the_size_that_is_kept() -> None:
    strip = Image.new("RGBA", (4000, 20))
    ImageDraw.Draw(strip).rectangle((100, 4, 2000, 16), fill="red")
    tiny = Image.new("L", (4000, 4000))
    ImageDraw.Draw(tiny).rectangle((100, 100, 114, 114), fill=255)
    with pytest.raises(ImageError, match="4000 x 20 pixels and is reduced to 1024 x 5"):
        read_picture(_encoded(strip))
    with pytest.raises(ImageError, match=r"too small.* after the picture was reduced to 1024 x 1024"):
        read_picture(_encoded(Image.merge("LA", [tiny, tiny])))


def _with_16_bits(mode: str) -> bytes:
    """A PNG by hand: Pillow writes 16 bits of grey alone."""
    bright, alpha = SHAPE * 48_000, SHAPE * 65_535
    channels = {"RGB": [bright, bright // 2, bright // 5], "RGBA": [bright, bright, bright, alpha], "LA": [bright, alpha]}
    rows = np.dstack(channels[mode]).astype(">u2").reshape(SIDE, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, {"RGB": 2, "LA": 4, "RGBA": 6}[mode], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _frames(kind: str) -> bytes:
    others = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    return _encoded(Image.fromarray(ON_WHITE), kind, save_all=True, append_images=others, duration=100, lossless=True)


def _transparent_palette() -> bytes:
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putdata((1 - SHAPE.astype(np.uint8)).ravel().tolist())
    image.putpalette([200, 90, 40, 255, 255, 255])
    return _encoded(image, transparency=1)


def _wide_gamut() -> bytes:
    return _encoded(Image.fromarray(ON_WHITE), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes())


ODD: dict[str, Callable[[], bytes]] = {
    "palette with transparency": _transparent_palette,
    "grey with one transparent level": lambda: _encoded(Image.fromarray(SHAPE.astype(np.uint8) * 90 + 30), transparency=30),
    "16-bit grey with one transparent level": lambda: _encoded(Image.fromarray(SHAPE.astype(np.uint16) * 9_000), transparency=0),
    "grey and alpha": lambda: _encoded(Image.fromarray(np.dstack([SHAPE * 90, SHAPE * 255]).astype(np.uint8))),
    "16-bit RGB": lambda: _with_16_bits("RGB"),
    "16-bit RGBA": lambda: _with_16_bits("RGBA"),
    "16-bit grey and alpha": lambda: _with_16_bits("LA"),
    "CMYK JPEG": lambda: _encoded(Image.fromarray(ON_WHITE).convert("CMYK"), "JPEG", quality=95),
    "progressive JPEG": lambda: _encoded(Image.fromarray(ON_WHITE), "JPEG", quality=95, progressive=True),
    "grey JPEG": lambda: _encoded(Image.fromarray(ON_WHITE).convert("L"), "JPEG", quality=95),
    "animated WebP": lambda: _frames("WEBP"),
    "animated PNG": lambda: _frames("PNG"),
    "1 bit": lambda: _encoded(Image.fromarray(SHAPE)),
    "ICC profile": _wide_gamut,
}


@pytest.mark.parametrize("kind", list(ODD))
def test_odd_files_are_read(kind: str) -> None:
    found = read_picture(ODD[kind]())
    assert _iou(found.mask, SHAPE) > (0.95 if "JPEG" in kind else 0.99) and found.warnings == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_of_the_size_that_the_pixels_have_before_they_are_turned_is_turned_with_them(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide = np.zeros((SIDE, SIDE + 40), dtype=bool)
    wide[:, 10 : 10 + SIDE] = SHAPE
    rgb = Image.fromarray(np.where(wide[..., None], np.uint8([190, 110, 60]), np.uint8(255)))
    truth = read_picture(_encoded(rgb, exif=exif)).mask  # in which Pillow and the plain background say where the object is
    upright = read_picture(_encoded(rgb, exif=exif), _grey(truth * 255))
    assert _iou(upright.mask, truth) > 0.99
    if orientation >= 5:
        found = read_picture(_encoded(rgb, exif=exif), _grey(wide * 255))
        assert _iou(found.mask, truth) > 0.99 and _codes(found) == [] == _codes(upright)
    else:
        assert _codes(upright) == ([] if orientation == 1 else ["mask_orientation"])


def test_sixteen_bits_of_grey_are_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = _encoded(Image.fromarray(SHAPE.astype(np.uint16) * 40_000), exif=exif)
    assert _iou(read_picture(deep).mask, np.rot90(SHAPE, -1)) > 0.99
