"""Pictures for people: a mask laid over its photo, the legend of a label set, contact sheets of results.

Colours come from the label set alone. Everything is drawn with Pillow and the font inside it, so a sheet
looks the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fcn_core.errors import LabelError
from fcn_core.labels import LabelSet

_STRIP_PIXELS = 1 << 18
_INK, _FAINT_INK, _PAPER, _LINE = (32, 36, 42), (116, 122, 130), (255, 255, 255), (222, 225, 229)


@dataclass(frozen=True)
class SheetTile:
    """One result on a contact sheet. `image`: uint8 [H, W, 3] RGB; `mask`: uint8 [H, W]; `note` is a fainter
    second line. `truth`: a mask to show between the two, uint8 [H, W]."""

    caption: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    note: str = ""
    truth: npt.NDArray[np.uint8] | None = None


def colorize(mask: npt.NDArray[np.uint8], labels: LabelSet) -> npt.NDArray[np.uint8]:
    """uint8 [H, W] class indices -> uint8 [H, W, 3] in the palette's colours."""
    return np.frombuffer(labels.flat_palette(), dtype=np.uint8).reshape(256, 3)[mask]


def overlay(
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    labels: LabelSet,
    alpha: float = 0.5,
    outline: bool = True,
) -> npt.NDArray[np.uint8]:
    """The image uint8 [H, W, 3] tinted with its mask's colours, uint8 [H, W, 3].

    `alpha` 0..1 is the share of the colour; ignored pixels keep the photo. `outline` draws the borders
    between classes in their own colour at full strength, so that small things stay visible. Raises LabelError
    if the sizes differ.
    """
    if image.shape != (*mask.shape, 3):
        raise LabelError(f"the image is {image.shape}, its mask {mask.shape}: render a mask with its own image")
    tinted = np.empty_like(image, order="C")
    # Strips of some rows, since the mixing needs many times their memory. Borders look at the row below.
    step = max(1, _STRIP_PIXELS // mask.shape[1])
    for start in range(0, mask.shape[0], step):
        part = mask[start : start + step + 1]
        edges = _borders(part)[:step] if outline else None
        tinted[start : start + step] = _tint(image[start : start + step], part[:step], edges, labels, alpha)
    return tinted


WRONG, UNANNOTATED = (214, 39, 40), (120, 130, 215)
"""Colours of `difference`: red where the prediction is another class, blue where nobody annotated anything."""


def difference(
    image: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    ignore_index: int,
) -> npt.NDArray[np.uint8]:
    """Where a mask differs from the truth: the image uint8 [H, W, 3] in pale grey, uint8 [H, W, 3].

    Wrong pixels are WRONG; pixels whose truth is `ignore_index` count for nothing and are UNANNOTATED. Raises
    LabelError if the sizes differ.
    """
    if image.shape != (*mask.shape, 3) or truth.shape != mask.shape:
        raise LabelError(f"the image is {image.shape}, its masks {truth.shape} and {mask.shape}: they are no set")
    grey = image.mean(axis=2, dtype=np.float32) * 0.6 + 90
    mixed = np.repeat(grey[..., None], 3, axis=2)
    ignored = truth == ignore_index
    for where, color, share in ((ignored, UNANNOTATED, 0.35), ((truth != mask) & ~ignored, WRONG, 0.8)):
        mixed[where] += (np.array(color, np.float32) - mixed[where]) * share
    drawn: npt.NDArray[np.uint8] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return drawn


def _tint(
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    edges: npt.NDArray[np.bool_] | None,
    labels: LabelSet,
    alpha: float,
) -> npt.NDArray[np.uint8]:
    share = np.full(mask.shape, alpha, dtype=np.float32)
    if edges is not None:
        share[edges] = min(1.0, alpha + 0.35)
    share[mask == labels.ignore_index] = 0
    mixed = image + (colorize(mask, labels).astype(np.float32) - image) * share[..., None]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _borders(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class."""
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    return edge


def legend(labels: LabelSet, width: int = 640, font_size: int = 15) -> Image.Image:
    """The classes and their colours in as many rows as `width` pixels ask for; RGB on white."""
    font = ImageFont.load_default(font_size)
    swatch, gap, row_height = font_size, font_size // 2, round(font_size * 1.9)
    cell = max(int(font.getlength(name)) for name in labels.names) + swatch + gap + 2 * font_size
    columns = min(labels.num_classes, max(1, width // cell))
    rows = -(-labels.num_classes // columns)
    picture = Image.new("RGB", (width, rows * row_height), _PAPER)
    draw = ImageDraw.Draw(picture)
    for k, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True)):
        left, top = (k % columns) * cell, (k // columns) * row_height + (row_height - swatch) // 2
        box = (left, top, left + swatch, top + swatch)
        draw.rounded_rectangle(box, radius=swatch // 4, fill=color, outline=_LINE if min(color) > 200 else None)
        draw.text((left + swatch + gap, top + swatch / 2), name, fill=_INK, font=font, anchor="lm")
    return picture


def contact_sheet(
    tiles: Sequence[SheetTile],
    labels: LabelSet,
    *,
    columns: int = 3,
    tile_width: int = 220,
    title: str = "",
    alpha: float = 0.55,
) -> Image.Image:
    """Pairs of image and overlay in a grid, each with its caption, and the legend of the classes below; RGB.

    Where a tile has a truth, its overlay comes between the two. A picture is fitted into `tile_width` x 3/4
    `tile_width` pixels and never distorted; a pair is twice as wide. Raises ValueError without a tile or a column.
    """
    if not tiles or columns < 1:
        raise ValueError(f"a contact sheet needs a tile and a column, not {len(tiles)} and {columns}")
    margin, gutter, text_size = 24, 20, max(11, tile_width // 17)
    font, heading = ImageFont.load_default(text_size), ImageFont.load_default(round(text_size * 1.7))
    columns = min(columns, len(tiles))
    box = (tile_width, tile_width * 3 // 4)
    line = round(text_size * 1.4)
    lines = 2 if any(tile.note for tile in tiles) else 1
    pictures = 3 if any(tile.truth is not None for tile in tiles) else 2
    cell_width, cell_height = pictures * (box[0] + 2) - 2, box[1] + lines * line + gutter
    width = 2 * margin + columns * cell_width + (columns - 1) * gutter
    key = legend(labels, width - 2 * margin, max(13, text_size))
    top = margin + (round(text_size * 2.8) if title else 0)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (width, top + rows * cell_height + key.height + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((margin, margin), _fit(title, heading, width - 2 * margin), fill=_INK, font=heading)
    for k, tile in enumerate(tiles):
        left = margin + (k % columns) * (cell_width + gutter)
        upper = top + (k // columns) * cell_height
        draw.rectangle((left, upper, left + cell_width - 1, upper + box[1] - 1), fill=(240, 242, 244))
        # At most twice the shown size before overlays are made: a 50-megapixel photo costs no more than a small one.
        shown = shrink(tile, 2 * box[0])
        masks = [mask for mask in (shown.truth, shown.mask) if mask is not None]
        overlays = [overlay(shown.image, mask, labels, alpha) for mask in masks]
        for place, picture in enumerate([shown.image, *overlays]):
            _place(sheet, picture, left + place * (box[0] + 2), upper, box)
        below = upper + box[1] + text_size // 3
        draw.text((left, below), _fit(tile.caption, font, cell_width), fill=_INK, font=font)
        if tile.note:
            draw.text((left, below + line), _fit(tile.note, font, cell_width), fill=_FAINT_INK, font=font)
    sheet.paste(key, (margin, sheet.height - margin // 2 - key.height))
    return sheet


def shrink(tile: SheetTile, side: int) -> SheetTile:
    """The tile with no side longer than `side`; masks by nearest neighbour."""
    factor = side / max(tile.mask.shape)
    if factor >= 1:
        return tile
    size = (max(1, round(tile.mask.shape[1] * factor)), max(1, round(tile.mask.shape[0] * factor)))

    def resized(picture: npt.NDArray[np.uint8], how: Image.Resampling) -> npt.NDArray[np.uint8]:
        return np.asarray(Image.fromarray(picture).resize(size, how))

    return replace(
        tile,
        image=resized(tile.image, Image.Resampling.BOX),
        mask=resized(tile.mask, Image.Resampling.NEAREST),
        truth=None if tile.truth is None else resized(tile.truth, Image.Resampling.NEAREST),
    )


def _place(sheet: Image.Image, picture: npt.NDArray[np.uint8], left: int, top: int, box: tuple[int, int]) -> None:
    """Paste a picture into the middle of a box, as large as fits."""
    height, width = picture.shape[:2]
    factor = min(box[0] / width, box[1] / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    fitted = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    sheet.paste(fitted, (left + (box[0] - size[0]) // 2, top + (box[1] - size[1]) // 2))


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, its middle left out if it is wider than `width` pixels: ends of keys tell more than middles.

    Characters that the font cannot draw become question marks.
    """
    text = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in text)
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept > 2 and font.getlength(text[: kept // 2] + "..." + text[-(kept - kept // 2) :]) > width:
        kept -= 1
    return text[: kept // 2] + "..." + text[-(kept - kept // 2) :]
