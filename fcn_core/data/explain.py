"""What a photo and its mask are, in words and in a picture: for whoever meets a segmentation data set, or a strange
file in one, for the first time.

The one thing to know: a mask is an ordinary array of class numbers. Everything that can go wrong with one (colours
instead of numbers, 0 and 255, another size, lossy compression) shows in its mode, shape and set of values, so those
are what is explained and checked. Torch is not needed.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fcn_core.data.picture_files import PictureFile
from fcn_core.errors import LabelError
from fcn_core.labels import PRESETS, LabelSet, Mask, indices_from_rgb, preset
from fcn_core.render import colorize, legend, overlay

_LOSSY = ("JPEG", "WEBP")
_UNKNOWN = "(unknown)"
_LISTED_CLASSES = 40

_CHANNELS = {
    "1": "one channel of black and white",
    "L": "one channel of grey, or of anything that fits a byte",
    "P": "one channel of numbers, and a palette that says how each number looks",
    "RGB": "three channels: how much red, green and blue",
    "RGBA": "four channels: red, green, blue, and how opaque",
    "CMYK": "four channels of printing ink",
    "I;16": "one channel of 16-bit numbers",
    "I": "one channel of 32-bit numbers",
    "F": "one channel of floating-point numbers",
}

_WHY_ONE_CHANNEL = (
    "Why is the photo [H, W, 3] and the mask [H, W]? The photo records light, which takes three numbers per pixel. The",
    "mask answers one question a pixel, which class is this, so one number is enough. Cross entropy wants just that",
    "number. The colours that a viewer shows are looked up in the palette; changing the palette changes no label.",
)


@dataclass(frozen=True, eq=False)
class ImageAndMask:
    """A photo and its mask, explained.

    text: for people, several lines. problems: what keeps the pair from being trained on, each with its remedy; empty
    if nothing does. indices: the mask as class numbers, uint8 [H, W], where it can be read so. labels: what the
    numbers mean, as far as known.
    """

    photo: PictureFile
    mask: PictureFile
    text: str
    problems: tuple[str, ...]
    indices: Mask | None
    labels: LabelSet


def explain_pair(photo: PictureFile, mask: PictureFile, labels: LabelSet | None = None) -> ImageAndMask:
    """Explain a photo and its mask. Without `labels`, a preset whose colours the mask has is taken, or none."""
    indices, reading, problems = _read_indices(mask, labels)
    found = labels or _labels_by_color(mask) or _unnamed(mask, indices)
    if mask.format in _LOSSY:
        problems.append(
            f"the mask is a {mask.format}, which changes values near edges, and so classes; make it anew as PNG"
        )
    elif mask.format not in ("PNG", "TIFF", "BMP"):
        problems.append(f"the mask is a {mask.format}, which readers of masks refuse; save it with encode_mask, as PNG")
    problems += _size_problems(photo, mask)
    lines = [*_file_lines("photo", photo), *_file_lines("mask", mask), *reading]
    if indices is not None:
        problems += _value_problems(indices, found)
        lines += ["", *_class_lines(indices, found, given=labels is not None)]
    lines += ["", *_WHY_ONE_CHANNEL, ""]
    fine = "Nothing is wrong: the sizes match, and every value has a meaning."
    if found.name == _UNKNOWN:
        fine = "The sizes match. Whether the values are right is to be seen with --labels."
    lines += [f"Problem: {problem}." for problem in problems] or [fine]
    return ImageAndMask(photo, mask, "\n".join(lines), tuple(problems), indices, found)


def draw_pair(pair: ImageAndMask, panel_width: int = 400) -> Image.Image:
    """Photo, mask, and one over the other side by side, with a legend of the classes in the mask; RGB.

    Each is fitted into `panel_width` x 3/4 `panel_width`. The third is left out if the mask does not fit the photo.
    """
    photo, mask = _shown(pair.photo), _shown(pair.mask)
    if pair.indices is not None:
        mask = Image.fromarray(colorize(pair.indices, pair.labels))
    panels = [(f"photo: {_kind(pair.photo)}", photo), (f"mask: {_kind(pair.mask)}", mask)]
    if pair.indices is not None and pair.photo.size == pair.mask.size:
        panels.append(("one over the other", Image.fromarray(overlay(np.asarray(photo), pair.indices, pair.labels))))
    font = ImageFont.load_default(max(11, panel_width // 28))
    height, margin, line = panel_width * 3 // 4, 16, round(panel_width / 14)
    width = len(panels) * (panel_width + margin) + margin
    key = None if pair.indices is None else legend(_present(pair.indices, pair.labels), width - 2 * margin)
    below = key.height + margin // 2 if key else 0
    sheet = Image.new("RGB", (width, 2 * margin + line + height + below), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for number, (caption, picture) in enumerate(panels):
        left = margin + number * (panel_width + margin)
        draw.text((left, margin), caption, fill=(32, 36, 42), font=font)
        resample = Image.Resampling.NEAREST if number == 1 else Image.Resampling.LANCZOS  # a mask has no half classes
        fitted = _contained(picture, (panel_width, height), resample)
        x, y = left + (panel_width - fitted.width) // 2, margin + line + (height - fitted.height) // 2
        draw.rectangle((x - 1, y - 1, x + fitted.width, y + fitted.height), outline=(200, 204, 210))
        sheet.paste(fitted, (x, y))
    if key:
        sheet.paste(key, (margin, sheet.height - key.height - margin // 2))
    return sheet


def _shown(file: PictureFile) -> Image.Image:
    """A file as a viewer shows it, but for its EXIF orientation; RGB."""
    array = file.array
    if file.palette:
        entries = np.zeros((256, 3), np.uint8)
        entries[: len(file.palette)] = file.palette
        return Image.fromarray(entries[array])
    if array.dtype != np.uint8:  # stretched, since its range says nothing about looks
        values = np.nan_to_num(array.astype(np.float64), posinf=0, neginf=0)
        low, high = values.min(), values.max()
        array = ((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    if array.ndim == 2:
        return Image.fromarray(array).convert("RGB")
    return Image.frombytes(file.mode, (array.shape[1], array.shape[0]), array.tobytes()).convert("RGB")


def _contained(picture: Image.Image, box: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """As large as fits the box, and no side thinner than a pixel."""
    factor = min(box[0] / picture.width, box[1] / picture.height)
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), resample)


def _kind(file: PictureFile) -> str:
    return f"{file.array.dtype} {list(file.array.shape)}, mode {file.mode}"


def _present(indices: Mask, labels: LabelSet) -> LabelSet:
    """Only the classes in a mask, each name with its number, and what is ignored as if it were one."""
    values = np.unique(indices)[:255]
    return LabelSet(
        name=labels.name,
        names=tuple(f"{value} {class_name(int(value), labels)}" for value in values),
        palette=tuple((int(r), int(g), int(b)) for r, g, b in colorize(values, labels)),
    )


def _file_lines(role: str, file: PictureFile) -> list[str]:
    shape = ", ".join(str(count) for count in file.array.shape)
    axes = "[H, W]" if file.array.ndim == 2 else "[H, W, channels]"
    lines = [
        f"{role}: {file.name}",
        f"  file    {file.format}, mode {file.mode}: {_CHANNELS.get(file.mode, f'{file.array.ndim} axes')}",
        f"  array   {file.array.dtype} [{shape}] = {axes}",
    ]
    if file.array.ndim == 2 and file.array.dtype.kind in "bui":
        lines.append(f"  values  {_listed(np.unique(file.array))}")
    else:
        lines.append(f"  values  {file.array.min()} to {file.array.max()}")
    if file.orientation != 1:
        lines.append(f"  EXIF    orientation {file.orientation}: viewers turn it, the stored array is not turned")
    return lines


def _read_indices(mask: PictureFile, labels: LabelSet | None) -> tuple[Mask | None, list[str], list[str]]:
    """The mask as class numbers, if it can be read so; lines that tell how; problems."""
    if mask.mode in ("P", "L") and not (mask.mode == "L" and mask.bits not in (None, 8)):
        return mask.array, [], []
    if mask.mode == "L":
        return (
            None,
            [],
            [
                f"the mask is grey with {mask.bits} bits a sample, which readers stretch to 0..255 (class 1 of 4 bits"
                " becomes 17); save it with 8 bits, or better as a palette PNG"
            ],
        )
    if mask.mode in ("RGB", "RGBA"):
        return _indices_of_colors(mask, labels)
    if mask.array.ndim == 2 and mask.array.dtype.kind in "bui" and mask.array.min() >= 0 and mask.array.max() <= 255:
        problem = f"the mask is of mode {mask.mode}, which readers of masks refuse; save it with encode_mask"
        return mask.array.astype(np.uint8), [], [problem]
    return (
        None,
        [],
        [
            f"the mask is of mode {mask.mode} with values {mask.array.min()} to {mask.array.max()}, which are no class"
            " numbers; find the mask this was made from, or how it was coded"
        ],
    )


def _indices_of_colors(mask: PictureFile, labels: LabelSet | None) -> tuple[Mask | None, list[str], list[str]]:
    rgb = np.ascontiguousarray(mask.array[..., :3])
    count = len(np.unique(rgb.reshape(-1, 3), axis=0))
    lines = [
        f"  meaning {count} colours, each standing for a class: good to look at, but a loss or a score would take red,",
        "          green and blue for three masks",
    ]
    refusal = ""
    for candidate in [labels] if labels else [preset(name) for name in PRESETS]:
        try:
            indices = indices_from_rgb(rgb, candidate)
        except LabelError as error:
            refusal = str(error)
            continue
        problem = (
            f"the mask holds colours of label set {candidate.name!r}, not class numbers; convert it once:"
            f" encode_mask(indices_from_rgb(rgb, labels), labels) with labels = preset({candidate.name!r})"
        )
        return indices, lines, [problem]
    if labels is None:
        remedy = "write a LabelSet with its colours and convert it with indices_from_rgb"
        if count > 256:
            remedy = "so many come from a smooth resize or from JPEG: find the mask this was made from"
        refusal = f"the mask holds colours, not class numbers, and they are those of no preset; {remedy}"
    return None, lines, [refusal]


def _labels_by_color(mask: PictureFile) -> LabelSet | None:
    """The preset that gives the mask's numbers the colours its palette has, or whose colours an RGB mask has."""
    for name in PRESETS:
        labels = preset(name)
        if mask.palette:
            known = dict(enumerate(labels.palette)) | {labels.ignore_index: labels.ignore_color}
            used = [int(value) for value in np.unique(mask.array)]
            if all(
                value < len(mask.palette) and (mask.palette[value] == known.get(value) or value == labels.ignore_index)
                for value in used
            ):
                return labels
        elif mask.mode in ("RGB", "RGBA"):
            try:
                indices_from_rgb(np.ascontiguousarray(mask.array[..., :3]), labels)
            except LabelError:
                continue
            return labels
    return None


def _unnamed(mask: PictureFile, indices: Mask | None) -> LabelSet:
    """Stands in where nobody said what the numbers mean: "class 3", in the file's colours where it has some."""
    values = [0] if indices is None else [int(value) for value in np.unique(indices) if value < 255]
    count = max(values, default=0) + 1
    spread = [((67 * i + 40) % 256, (151 * i + 90) % 256, (211 * i + 160) % 256) for i in range(count)]
    palette = tuple(mask.palette[:count]) if len(set(mask.palette[:count])) == count else tuple(spread)
    return LabelSet(name=_UNKNOWN, names=tuple(f"class {i}" for i in range(count)), palette=palette)


def _size_problems(photo: PictureFile, mask: PictureFile) -> list[str]:
    if photo.size == mask.size:
        if photo.orientation == 1:
            return []
        return [
            f"the photo's EXIF orientation is {photo.orientation}, so readers that obey it turn the photo and not the"
            " mask; store the photo upright, without the tag, if the mask fits it as it is"
        ]
    (height, width), (mask_height, mask_width) = photo.size, mask.size
    sizes = f"the photo has {width}x{height} pixels, the mask {mask_width}x{mask_height}"
    if photo.orientation >= 5 and photo.size == mask.size[::-1]:
        return [
            f"{sizes}: the mask fits the photo as its EXIF orientation ({photo.orientation}) turns it; store the photo"
            " turned, without the tag"
        ]
    return [
        f"{sizes}, but every pixel of the photo needs a label; take the mask that belongs to this photo, or resize the"
        " mask by nearest neighbour (a smooth resize would invent classes)"
    ]


def _value_problems(indices: Mask, labels: LabelSet) -> list[str]:
    values = [int(value) for value in np.unique(indices)]
    if values == [0, 255]:
        return [
            "its only values are 0 and 255, a black-and-white picture; 255 means ignored, so that nothing but class 0"
            " could be learnt: write 1 (or the class's number) where there is 255"
        ]
    if values == [labels.ignore_index]:
        return ["every pixel is ignored, so that there is nothing to learn or to score; leave the pair out"]
    strange = [v for v in values if v >= labels.num_classes and v != labels.ignore_index]
    if labels.name == _UNKNOWN and len(values) > _LISTED_CLASSES:
        return [
            f"the mask holds {len(values)} different values, more than there are classes in most label sets; masks"
            " that were resized smoothly or saved as JPEG look like this: find the one this was made from"
        ]
    if not strange:
        return []
    problem = (
        f"the mask holds {_listed(np.array(strange))}, but label set {labels.name!r} has classes"
        f" 0..{labels.num_classes - 1} and ignores {labels.ignore_index}; choose the label set it was made with"
    )
    if strange == [labels.num_classes]:
        problem += f", or write {labels.ignore_index} if {strange[0]} means void, as in some copies of CamVid"
    return [problem]


def _class_lines(indices: Mask, labels: LabelSet, given: bool) -> list[str]:
    counts = np.bincount(indices.ravel(), minlength=256)
    source = "as told" if given else "recognised by its colours"
    title = f"classes, by label set {labels.name!r} ({source}):"
    if labels.name == _UNKNOWN:
        title = "classes (nobody said what the numbers mean; --labels gives them names):"
    named = [(int(value), class_name(int(value), labels)) for value in np.flatnonzero(counts)]
    wide = max(len(name) for _, name in named)
    rows = [
        f"  {value:5d}  {name:{wide}}  {counts[value]:>11,}  {100 * counts[value] / indices.size:5.1f} %"
        for value, name in named[:_LISTED_CLASSES]
    ]
    more = len(named) - len(rows)
    rest = [f"  and {more} values more"] if more else []
    return [title, f"  value  {'class':{wide}}  {'pixels':>11}    share", *rows, *rest]


def class_name(value: int, labels: LabelSet) -> str:
    """What a value of a mask is called."""
    if value < labels.num_classes:
        return labels.names[value]
    return "(ignored)" if value == labels.ignore_index else _UNKNOWN


def _listed(values: npt.NDArray[Any]) -> str:
    """Sorted numbers for people: runs as 0..3, and no more than a line of them."""
    numbers = [int(value) for value in values]
    runs: list[list[int]] = [[numbers[0]]]
    for before, value in pairwise(numbers):
        if value == before + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]}..{run[-1]}"] if len(run) > 2 else [str(value) for value in run]
    return ", ".join(parts[:12]) + (f" and more, {len(numbers)} in all" if len(parts) > 12 else "")
