"""Street scenes with known ground truth, made from a seed: what the demo trains on and labels.

A seed decides everything (light, street, houses, traffic), so a scene can be made again anywhere, pixel for
pixel, to judge a mask that came back from a bucket. `special_files` adds the awkward files that every real
bucket has.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_core.labels import LabelSet
from flows.demo.canvas import Camera, Canvas, Color, Light, Part
from flows.demo.street import Painter

SCENE_LABELS = LabelSet(
    name="street-scenes",
    names=tuple(part.name.lower() for part in Part),
    palette=(
        (108, 168, 220),  # sky
        (128, 96, 88),  # building
        (110, 80, 140),  # road
        (238, 130, 205),  # sidewalk
        (82, 158, 62),  # tree
        (38, 70, 200),  # car
        (246, 200, 60),  # pole
        (220, 36, 60),  # person
    ),
)

# Sizes of ordinary cameras, made small: landscape 4:3, 3:2, 16:9, square, portrait.
SIZES = ((384, 288), (360, 240), (400, 225), (288, 288), (240, 320), (320, 240))

_FACADES: tuple[Color, ...] = (
    (178, 120, 96), (196, 168, 132), (206, 198, 182), (150, 92, 76), (168, 172, 176),
    (214, 186, 140), (134, 122, 112), (186, 146, 138), (120, 132, 138), (222, 212, 196),
)  # fmt: skip
_CAR_COLORS: tuple[Color, ...] = (
    (188, 30, 34), (232, 234, 236), (34, 36, 42), (42, 78, 150), (150, 154, 160), (88, 92, 98),
    (226, 178, 40), (30, 96, 84), (120, 34, 44),
)  # fmt: skip
_GREENS: tuple[Color, ...] = ((86, 128, 58), (70, 112, 52), (106, 138, 62), (60, 100, 64), (150, 136, 58))

# How much grain a surface shows: leaves most, the sky least. One entry a `Part`.
_GRAIN = np.array([1.0, 3.0, 3.6, 3.2, 9.0, 2.0, 2.0, 2.5], dtype=np.float32)
_STAINS = np.array([0.0] + [22.0] * (len(Part) - 1), dtype=np.float32)

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Scene:
    """A picture and its ground truth. `image`: uint8 [H, W, 3] RGB; `mask`: uint8 [H, W], classes of
    SCENE_LABELS."""

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


def generate_scene(seed: int, width: int = 320, height: int = 240) -> Scene:
    """The scene of that seed at that size in pixels (at least 16 each way); equal arguments, equal pixels."""
    if min(width, height) < 16:
        raise ValueError(f"a scene of {width}x{height} pixels shows nothing: ask for at least 16x16")
    rng = np.random.default_rng([seed, width, height])
    focal = np.sqrt(width * height) * rng.uniform(0.72, 0.95)
    camera = Camera(
        x=width * rng.uniform(0.40, 0.60),
        y=height * rng.uniform(0.42, 0.54),
        focal=float(focal),
        height=float(rng.uniform(1.5, 2.4)),
        across=float(rng.uniform(-0.6, 2.2)),
    )
    light, sky = _weather(rng, width, height, camera)
    painter = Painter(Canvas(sky), camera, light, rng)
    _paint_street(painter)
    image, mask = painter.canvas.finish()
    return Scene(_develop(image, mask, light, rng), mask)


def scene_size(seed: int) -> tuple[int, int]:
    """The (width, height) that the demo gives scene `seed`: `SIZES`, drawn by the seed."""
    return SIZES[int(np.random.default_rng([seed, 1]).integers(len(SIZES)))]


def _weather(rng: np.random.Generator, width: int, height: int, camera: Camera) -> tuple[Light, npt.NDArray[np.uint8]]:
    """The light and the sky uint8 [H, W, 3]: clear, overcast or dusk, with clouds and the sun's glow."""
    kind = rng.choice(3, p=(0.55, 0.2, 0.25))
    sun = float(rng.uniform(-1, 1))
    if kind == 0:
        zenith, horizon, glow, dusk, warmth = (
            (86, 144, 212),
            (190, 216, 236),
            (255, 250, 232),
            0.0,
            rng.uniform(0, 0.6),
        )
    elif kind == 1:
        zenith, horizon, glow, dusk, warmth = (146, 154, 164), (206, 210, 212), (228, 230, 230), 0.12, -0.3
        sun *= 0.2
    else:
        dusk = rng.uniform(0.4, 0.75)
        zenith, horizon, glow, warmth = (52, 62, 112), (238, 160, 112), (255, 206, 130), 0.5 * (1 - dusk)
    ys = np.linspace(0, 1, height, dtype=np.float32)[:, None] * height / max(camera.y, 1)
    blend = np.clip(ys, 0, 1)[..., None] ** 1.3
    sky = np.array(zenith, np.float32) * (1 - blend) + np.array(horizon, np.float32) * blend
    sky = np.broadcast_to(sky, (height, width, 3))

    cover = _cloud_field(rng, width, height)
    amount = np.clip((cover - rng.uniform(0.45, 0.75)) * 3.0, 0, 1) * (0.75 if kind != 1 else 0.4)
    white = np.array((250, 250, 250) if kind == 0 else (188, 192, 198) if kind == 1 else (232, 150, 140), np.float32)
    shaded = white * (1 - 0.22 * cover[..., None])
    sky = sky * (1 - amount[..., None]) + shaded * amount[..., None]

    x, y = width * (0.5 + 0.5 * sun), camera.y * rng.uniform(0.1, 0.7)
    from_x = np.arange(width, dtype=np.float32)[None, :] - np.float32(x)
    from_y = np.arange(height, dtype=np.float32)[:, None] - np.float32(y)
    near_sun = np.exp((from_x**2 + from_y**2) / np.float32(-((0.16 * width) ** 2)))
    near_sun *= 0.85 if kind == 0 else 0.55 if kind == 2 else 0.2
    sky = sky * (1 - near_sun[..., None]) + np.array(glow, np.float32) * near_sun[..., None]
    haze = tuple(float(c) * (1 - 0.35 * dusk) for c in horizon)
    light = Light(sun=sun, dusk=float(dusk), warmth=float(warmth), haze=(haze[0], haze[1], haze[2]))
    return light, np.clip(sky * (1 - 0.2 * dusk), 0, 255).astype(np.uint8)


def _cloud_field(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.float32]:
    """Smooth noise 0..1, float32 [H, W], stretched sideways: three octaves of enlarged random grids."""
    total = np.zeros((height, width), np.float32)
    for octave, weight in ((1, 0.55), (2, 0.3), (4, 0.15)):
        grid = rng.random((5 * octave, 3 * octave), dtype=np.float32)
        total += weight * np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(total, 0, 1)


def _paint_street(painter: Painter) -> None:
    """Everything below the sky, far to near."""
    rng = painter.rng
    road = rng.uniform(3.2, 6.5)  # from the middle of the street to the kerb, metres
    pavement = rng.uniform(2.2, 4.2)
    facade = road + pavement
    grey = rng.uniform(84, 118)
    asphalt: Color = (grey, grey * 1.01, grey * 1.05)
    worn = rng.uniform(0.85, 1.15)
    paving: Color = (176 * worn, 166 * worn, 152 * worn)
    painter.ground(-120, 120, 1.2, 400, paving, Part.SIDEWALK)
    painter.ground(-road, road, 1.2, 400, asphalt, Part.ROAD)
    _paint_markings(painter, road, paving)
    _paint_buildings(painter, facade)

    things: list[tuple[float, int, float]] = []  # depth, kind, side or x
    for side in (-1, 1):
        if rng.random() < 0.75:
            things += [
                (z, 0, side) for z in np.arange(rng.uniform(6, 14), 70, rng.uniform(7, 15)) if rng.random() < 0.8
            ]
        things += [(z, 1, side) for z in np.arange(rng.uniform(5, 14), 42, rng.uniform(11, 20))]
        things += [
            (float(z), 2, side * rng.uniform(road + 0.6, facade - 0.4)) for z in rng.uniform(4.5, 20, rng.poisson(2.2))
        ]
        if road > 4.2:
            things += [
                (z, 3, side * (road - 1.1)) for z in np.arange(rng.uniform(4, 10), 50, 5.6) if rng.random() < 0.5
            ]
    lane = 1.55 if road < 4.8 else 2.0
    things += [(float(z), 3, lane) for z in _spaced(rng, 6, 60, 11)]
    things += [(float(z), 4, -lane) for z in _spaced(rng, 7, 60, 11)]
    if rng.random() < 0.3:
        things += [(float(z), 2, rng.uniform(-road, road)) for z in rng.uniform(5, 12, 2)]
    for depth, kind, where in sorted(things, reverse=True):
        if kind == 0:
            green = _GREENS[int(rng.integers(len(_GREENS)))]
            painter.tree(where * (road + 0.9), depth, rng.uniform(4.2, 7.5), green)
        elif kind == 1:
            painter.pole(where * (road + 0.45), depth + 1.7, "lamp" if rng.random() < 0.6 else "sign")
        elif kind == 2:
            painter.person(where, depth, rng.uniform(1.5, 1.9))
        else:
            color = _CAR_COLORS[int(rng.integers(len(_CAR_COLORS)))]
            painter.car(where, depth, color, oncoming=kind == 4)


def _spaced(rng: np.random.Generator, first: float, last: float, gap: float) -> list[float]:
    """Depths of a lane's cars: at least `gap` metres apart, some left out."""
    starts = np.arange(first + rng.uniform(0, gap), last, gap) + rng.uniform(0, gap - 5.0)
    return [float(z) for z in starts if rng.random() < 0.45]


def _paint_markings(painter: Painter, road: float, paving: Color) -> None:
    """Kerbs, the dashed middle line, edge lines, and sometimes a zebra crossing. All of it is road or
    sidewalk."""
    rng = painter.rng
    stone: Color = (paving[0] * 1.12, paving[1] * 1.12, paving[2] * 1.12)
    for side in (-1, 1):
        inner, outer = sorted((side * road, side * (road + 0.22)))
        painter.ground(inner, outer, 1.2, 120, stone, Part.SIDEWALK)
    paint: Color = (226, 226, 220)
    start = rng.uniform(0, 5)
    for z in np.arange(1.3 + start, 90, 6.0):
        painter.ground(-0.08, 0.08, z, z + 3.0, paint, None)
    if rng.random() < 0.5:
        for x in (-road + 0.35, road - 0.35):
            painter.ground(x - 0.06, x + 0.06, 1.2, 120, paint, None)
    if rng.random() < 0.35:
        z = rng.uniform(5, 14)
        for x in np.arange(-road + 0.4, road - 0.6, 1.0):
            painter.ground(x, x + 0.5, z, z + 2.6, paint, None)


def _paint_buildings(painter: Painter, facade: float) -> None:
    """Two rows of houses of varied height and colour, now and then a gap, painted from the far end to the
    near."""
    rng = painter.rng
    houses: list[tuple[float, float, int]] = []
    for side in (-1, 1):
        z = rng.uniform(-6, 2)
        while z < 110:
            length = rng.uniform(8, 20)
            if rng.random() < 0.88:
                houses.append((max(z, 1.3), z + length, side))
            z += length + (0.0 if rng.random() < 0.75 else rng.uniform(2, 7))
    tall = rng.uniform(7, 15)
    for z0, z1, side in sorted(houses, reverse=True):
        if z1 - z0 > 1:
            color = _FACADES[int(rng.integers(len(_FACADES)))]
            painter.building(side, facade, z0, z1, tall * rng.uniform(0.65, 1.45), color)


def _develop(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], light: Light, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """What lens and sensor add: surface grain, patches of tone, a darker rim, noise in poor light."""
    height, width = mask.shape
    fine = rng.standard_normal((height, width), dtype=np.float32)
    patches = _cloud_field(rng, width, height) - 0.5
    tone = fine * _GRAIN[mask] * (1 - 0.4 * light.dusk) + patches * _STAINS[mask]
    pixels = rng.standard_normal((height, width, 3), dtype=np.float32)
    pixels *= 1.6 + 3.0 * light.dusk
    ys, xs = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    rim = (1 - 0.13 * (xs**2 + ys**2)).astype(np.float32)
    pixels += image
    pixels += tone[..., None]
    pixels *= rim[..., None]
    return np.clip(pixels, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class NamedFile:
    """A file for the demo's bucket. `mask`: uint8 [H, W] as the image is displayed, None where there is
    nothing to label."""

    name: str
    data: bytes
    mask: npt.NDArray[np.uint8] | None
    comment: str


def encode_jpeg(image: npt.NDArray[np.uint8], quality: int = 88, exif: Image.Exif | None = None) -> bytes:
    """The image uint8 [H, W, 3] as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality, exif=exif or Image.Exif())
    return buffer.getvalue()


def special_files(seed: int) -> list[NamedFile]:
    """Files such as every real bucket holds: a turned phone photo, odd pixel formats, and two that cannot be
    read."""
    portrait = generate_scene(seed, 192, 256)
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = 6  # "to display, turn a quarter clockwise"; so it is stored turned counterclockwise
    turned = encode_jpeg(np.rot90(portrait.image), exif=exif)

    whole = encode_jpeg(generate_scene(seed + 1).image)
    grey, indexed = generate_scene(seed + 2, 256, 192), generate_scene(seed + 3, 240, 240)
    luma = np.asarray(Image.fromarray(grey.image).convert("L")).astype(np.uint16) * 257
    deep, animation = io.BytesIO(), io.BytesIO()
    Image.fromarray(luma).save(deep, format="PNG")
    Image.fromarray(indexed.image).quantize(128).save(animation, format="GIF")
    return [
        NamedFile("phone-portrait.jpg", turned, portrait.mask, "JPEG stored rotated, EXIF orientation 6"),
        NamedFile("cut-short.jpg", whole[: len(whole) // 2], None, "JPEG whose second half is missing"),
        NamedFile("notes.jpg", b"These are not pixels.\n", None, "text in a file named .jpg"),
        NamedFile("scanner-16bit.png", deep.getvalue(), grey.mask, "16-bit grey PNG"),
        NamedFile("palette.gif", animation.getvalue(), indexed.mask, "GIF of 128 colours"),
    ]
