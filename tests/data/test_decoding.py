"""Decoding against pictures whose pixels are known, and against plain Pillow on real ones."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from PIL.PngImagePlugin import PngImageFile, PngInfo
from torch import Tensor

from groco_cli.data.decoding import BadImageError, Encoded, decode, format_of

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ORIENTATION = 274  # EXIF tag


def channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def thrice(grey: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(grey)).expand(3, -1, -1)


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[..., Tensor]:
    """Writes a picture with Pillow and decodes it."""

    def write_and_decode(image: Image.Image, ending: str, **options: object) -> Tensor:
        path = tmp_path / f"picture.{ending}"
        image.save(path, **options)
        return decode(path)

    return write_and_decode


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.uint8
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("ending", ["png", "bmp", "ppm", "tif", "webp"])
def test_colours_come_out_as_they_went_in(decoded, ending: str):
    if ending == "webp" and not features.check("webp"):
        pytest.skip("this Pillow reads no WebP")
    options = {"lossless": True} if ending == "webp" else {}
    assert_same(decoded(Image.fromarray(RGB), ending, **options), channels_first(RGB))


@pytest.mark.parametrize("ending", ["png", "pgm", "gif"])
def test_greyscale_becomes_three_equal_channels(decoded, ending: str):
    assert_same(decoded(Image.fromarray(GREY), ending), thrice(GREY))


def test_black_and_white_becomes_0_and_255(decoded):
    bits = GREY > 127
    assert_same(decoded(Image.fromarray(bits), "png"), thrice(bits.astype(np.uint8) * 255))


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80"], ids=["opaque", "one colour", "bytes"])
def test_palettes_are_looked_up_whatever_their_transparency(
    decoded, transparency: object, recwarn: pytest.WarningsRecorder
):
    palette = np.array([[255, 0, 0], [0, 200, 0], [1, 2, 3]], dtype=np.uint8)
    indices = GREY % 3
    image = Image.fromarray(indices)
    image.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    assert_same(decoded(image, "png", **options), channels_first(palette[indices]))
    assert not recwarn


def test_alpha_is_dropped(decoded):
    alpha = GREY[..., None]
    assert_same(decoded(Image.fromarray(np.concatenate([RGB, alpha], axis=-1)), "png"), channels_first(RGB))
    grey_and_alpha = Image.merge("LA", [Image.fromarray(RGB[..., 1]), Image.fromarray(GREY)])
    assert_same(decoded(grey_and_alpha, "png"), thrice(RGB[..., 1]))


def test_cmyk_is_ink_on_white(decoded):
    inks = np.array([[[0, 0, 0, 0], [0, 255, 255, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    colours = np.array([[[255, 255, 255], [255, 0, 0], [0, 255, 255], [0, 0, 0]]], dtype=np.uint8)
    assert_same(decoded(Image.fromarray(inks, mode="CMYK"), "tif"), channels_first(colours))
    plain = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    error = decoded(plain, "jpg").int() - torch.tensor([255, 0, 0])[:, None, None]
    assert error.abs().max() <= 3  # JPEG's own loss


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_are_scaled_to_8(decoded, ending: str):
    deep = np.array([[0, 255, 256, 32768], [65535, 128 * 257, 511, 65279]], dtype=np.uint16)
    shallow = np.array([[0, 0, 1, 128], [255, 128, 1, 254]], dtype=np.uint8)
    assert_same(decoded(Image.fromarray(deep), ending), thrice(shallow))


def test_16_bits_of_a_pgm_are_scaled_to_8(tmp_path: Path):
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 3 1 65535\n" + struct.pack(">3H", 0, 0x1234, 0xFFFF))
    assert_same(decode(path), thrice(np.array([[0, 0x12, 0xFF]], dtype=np.uint8)))


# What was done to the upright picture, by the EXIF standard's table: where row 0 and column 0 of the stored one lie.
STORED = {
    1: lambda p: p,  # top, left
    2: lambda p: p[:, ::-1],  # top, right
    3: lambda p: p[::-1, ::-1],  # bottom, right
    4: lambda p: p[::-1],  # bottom, left
    5: lambda p: p.transpose(1, 0, 2),  # left, top
    6: lambda p: p.transpose(1, 0, 2)[::-1],  # right, top
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda p: p.transpose(1, 0, 2)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_upright_by_their_exif(decoded, orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.ascontiguousarray(STORED[orientation](RGB))
    assert_same(decoded(Image.fromarray(stored), "png", exif=exif), channels_first(RGB))


def png(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, format="png", **options)
    return buffer.getvalue()


def test_the_size_of_a_png_is_known_without_decoding_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert Encoded(png(), "a").size == RGB.shape[:2]


def test_a_png_is_turned_by_whatever_pillow_finds_in_it():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    profile, xmp = PngInfo(), PngInfo()
    content = exif.tobytes()
    profile.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n", zip=True)
    xmp.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>', zip=True)
    for stored in (png(exif=exif), png(pnginfo=profile), png(pnginfo=xmp)):
        assert Image.open(io.BytesIO(stored)).getexif()[ORIENTATION] == 6
        assert Encoded(stored, "a").size == RGB.shape[1::-1]
        assert_same(decode(stored), channels_first(np.rot90(RGB, -1)))


def test_formats_are_named_as_pillow_names_them():
    assert [format_of(content) for content in (png(), jpeg(), b"", b"no picture")] == ["PNG", "JPEG", "", ""]


def test_real_jpegs_are_decoded_as_pillow_does_and_turned(imagenet_jpegs: Path):
    modes, turned = set(), 0
    for path in sorted(imagenet_jpegs.iterdir())[::5]:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
            if image.getexif().get(ORIENTATION) == 6:  # taken with the camera on its side
                pixels, turned = np.rot90(pixels, -1), turned + 1
            modes.add(image.mode)
            assert_same(decode(path), channels_first(pixels))
    assert modes >= {"L", "RGB"}
    assert turned


def test_bytes_are_decoded_as_their_file_is(imagenet_jpegs: Path):
    for path in sorted(imagenet_jpegs.iterdir())[::25]:
        assert_same(decode(path.read_bytes()), decode(path))


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RGB, (12, 12, 1))).save(buffer, format="jpeg", **options)
    return buffer.getvalue()


def damaged_exif() -> bytes:
    """A turned JPEG whose EXIF gives its width as a text."""
    entries = struct.pack("<HHI4s", 0x100, 2, 4, b"abc\0") + struct.pack("<HHII", ORIENTATION, 3, 1, 6)
    return jpeg(exif=b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4))


BAD = {
    "truncated": lambda: jpeg()[:-500],
    "cut off in its header": lambda: jpeg()[:20],
    "empty": lambda: b"",
    "a text": lambda: b"this is no picture\n",
    "zeros": lambda: bytes(5000),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_bad_file_is_told_by_name(tmp_path: Path, damage: str):
    path = tmp_path / "bad.jpg"
    path.write_bytes(BAD[damage]())
    with pytest.raises(BadImageError, match=r"cannot decode .*bad\.jpg: .") as caught:
        decode(path)
    assert caught.value.name == str(path)
    assert caught.value.reason
    with pytest.raises(BadImageError, match=r"cannot decode s\.tar:bad: .") as caught:
        decode(path.read_bytes(), "s.tar:bad")
    assert caught.value.name == "s.tar:bad"
    assert "0x" not in caught.value.reason, "bytes have no name but their own"


def test_a_picture_with_damaged_exif_is_still_a_picture():
    with Image.open(io.BytesIO(damaged_exif())) as image:
        turned = np.rot90(np.array(image.convert("RGB")), -1)
    assert_same(decode(damaged_exif()), channels_first(turned))


def test_a_missing_file_and_a_folder_are_told_by_name(tmp_path: Path):
    with pytest.raises(BadImageError, match=r"nowhere\.jpg"):
        decode(tmp_path / "nowhere.jpg")
    with pytest.raises(BadImageError, match=tmp_path.name):
        decode(tmp_path)


@pytest.mark.parametrize("limit", [30, 17], ids=["Pillow warns", "Pillow refuses"])
def test_a_decompression_bomb_is_not_decoded(decoded, monkeypatch: pytest.MonkeyPatch, limit: int):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 35)
    decoded(Image.fromarray(RGB), "png")  # 7 by 5
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BadImageError, match=r"picture\.png.*bomb"):
        decoded(Image.fromarray(RGB), "png")


def test_a_damaged_picture_raises_nothing_else(tmp_path: Path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    whole = jpeg(exif=exif)
    path, rng = tmp_path / "noisy.jpg", np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for place in rng.integers(0, 200, 4):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert decode(path).dtype == torch.uint8
        except BadImageError:
            refused += 1
    assert 0 < refused < 200


@pytest.mark.parametrize("orientation", STORED)
def test_jpegs_are_turned_upright_by_their_exif(orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    smooth = np.linspace(0, 255, 24 * 16 * 3).reshape(24, 16, 3).astype(np.uint8)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](smooth)))
    buffer = io.BytesIO()
    stored.save(buffer, "jpeg", quality=100, subsampling=0, exif=exif)
    picture = Encoded(buffer.getvalue(), "turned")
    assert picture.size == (24, 16)
    found = picture.pixels()
    assert found.shape == (3, 24, 16)
    assert (found.int() - channels_first(smooth).int()).abs().max() <= 6  # JPEG's own loss


def test_an_image_s_size_is_known_before_it_is_decoded(imagenet_jpegs: Path):
    for path in sorted(imagenet_jpegs.iterdir())[::10]:
        picture = Encoded(path.read_bytes(), path.name)
        assert picture.size == tuple(decode(path).shape[1:])
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "png")
    assert Encoded(buffer.getvalue(), "png").size == RGB.shape[:2]


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_libjpeg_shrinks_to_block_means(imagenet_jpegs: Path, shrink: int):
    for path in sorted(imagenet_jpegs.iterdir())[::25]:
        whole = decode(path)
        small = Encoded(path.read_bytes(), path.name).pixels(shrink)
        assert small.shape[1:] == tuple(-(-side // shrink) for side in whole.shape[1:])
        rows, columns = (side // shrink * shrink for side in whole.shape[1:])
        means = torch.nn.functional.avg_pool2d(whole[:, :rows, :columns].float(), shrink)
        difference = (small[:, : rows // shrink, : columns // shrink].float() - means).abs()
        assert difference.mean() < 4  # the chroma of some is halved already


def test_other_files_are_not_shrunk():
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "png")
    assert_same(Encoded(buffer.getvalue(), "png").pixels(4), channels_first(RGB))


def test_inked_jpegs_and_those_that_libjpeg_grumbles_at_are_left_to_pillow():
    inked = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(inked, "jpeg")
    with Image.open(io.BytesIO(inked.getvalue())) as image:
        assert_same(decode(inked.getvalue()), channels_first(np.array(image.convert("RGB"))))
    stray = jpeg()[:-2] + b"\x00\x11\x22" + jpeg()[-2:]  # bytes before the end marker: libjpeg warns and goes on
    with Image.open(io.BytesIO(stray)) as image:
        assert_same(decode(stray), channels_first(np.array(image.convert("RGB"))))


def test_a_jpeg_that_claims_to_be_huge_is_refused_before_it_is_decoded():
    content = bytearray(jpeg())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    with pytest.raises(BadImageError, match="decompression bomb"):
        Encoded(bytes(content), "bomb").pixels()
    with pytest.raises(BadImageError, match="decompression bomb"):
        _ = Encoded(bytes(content), "bomb").size
