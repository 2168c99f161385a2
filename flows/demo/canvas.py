"""What a scene is painted on and seen by: canvas, camera and light, and the classes that can be painted.

Everything stands in one world: metres, X to the right, Y up, Z away from the camera, which looks along the
street. The picture is painted `SUPERSAMPLING` times too large and reduced; the mask is painted at its own
size, without smoothing, so every pixel is exactly one class.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SUPERSAMPLING = 2
NEAR = 1.2  # metres: what is nearer than this is cut off

Color = tuple[float, float, float]
Points = npt.NDArray[np.float64]
Point = tuple[float, float] | Points  # one point [2]


class Part(IntEnum):
    """The classes of a scene; the values are the mask's."""

    SKY = 0
    BUILDING = 1
    ROAD = 2
    SIDEWALK = 3
    TREE = 4
    CAR = 5
    POLE = 6
    PERSON = 7


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: the street vanishes at pixel (`x`, `y`); `focal` is in pixels.

    It stands `height` metres above the ground and `across` metres to the right of the street's middle.
    """

    x: float
    y: float
    focal: float
    height: float
    across: float

    def project(self, points: Points) -> Points:
        """World points [..., 3] in metres -> pixel coordinates [..., 2]."""
        pixels = np.array([1.0, -1.0]) * (points[..., :2] - (self.across, self.height))
        pixels *= (self.focal / np.maximum(points[..., 2], NEAR))[..., None]
        pixels += (self.x, self.y)
        return pixels


@dataclass(frozen=True)
class Light:
    """How the scene is lit. `sun` is -1 (from the left) to 1 (from the right); `dusk` 0 (day) to 1 (night
    falls)."""

    sun: float
    dusk: float
    warmth: float
    haze: Color

    def shade(self, color: Color, brightness: float, distance: float) -> tuple[int, int, int]:
        """The colour as the camera sees it: brightness of its face, then the haze of `distance` metres of
        air."""
        exposure = brightness * (1.08 - 0.5 * self.dusk)
        air = 1 - math.exp(-distance / 130)
        tint = (1 + 0.10 * self.warmth, 1.0, 1 - 0.14 * self.warmth)
        red, green, blue = (
            int(min(max(channel * exposure * gain * (1 - air) + fog * air, 0.0), 255.0))
            for channel, gain, fog in zip(color, tint, self.haze, strict=True)
        )
        return red, green, blue

    def side(self, facing: float) -> float:
        """Brightness of an upright face that looks to the left (-1), the right (1) or the camera (0)."""
        return 0.80 + 0.22 * self.sun * facing


class Canvas:
    """A picture and its mask, painted together; coordinates are the mask's pixels, (0, 0) the top left
    corner."""

    def __init__(self, background: npt.NDArray[np.uint8]) -> None:
        """`background`: uint8 [H, W, 3], the sky; the mask starts as sky everywhere."""
        height, width = background.shape[:2]
        self.size = (width, height)
        large = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self._image = Image.fromarray(background).resize(large, Image.Resampling.BILINEAR)
        self._mask = Image.new("L", self.size, int(Part.SKY))
        self._brush = ImageDraw.Draw(self._image)
        self._labels = ImageDraw.Draw(self._mask)

    def polygon(self, points: Points, color: tuple[int, int, int], part: Part | None) -> None:
        """Fill a polygon (pixel coordinates [n, 2]). `part` None paints the picture only: detail, shadow,
        light."""
        # Pillow puts pixel centres at whole numbers, we put them at halves.
        self._brush.polygon((points * SUPERSAMPLING - 0.5).ravel().tolist(), fill=color)
        if part is not None:
            self._labels.polygon((points - 0.5).ravel().tolist(), fill=int(part))

    def ellipse(self, center: Point, radius: Point, color: tuple[int, int, int], part: Part | None) -> None:
        """Fill an ellipse with the given centre and radii in pixels."""
        (x, y), (rx, ry) = center, radius
        box = np.array([x - rx, y - ry, x + rx, y + ry])
        self._brush.ellipse((box * SUPERSAMPLING - 0.5).tolist(), fill=color)
        if part is not None:
            self._labels.ellipse((box - 0.5).tolist(), fill=int(part))

    def glow(self, center: Point, radius: float, color: tuple[int, int, int], strength: float) -> None:
        """Lay a soft round light (or, in a dark colour, a soft shadow) over the picture."""
        size = max(2, int(radius * SUPERSAMPLING * 2))
        ramp = np.linspace(-1, 1, size)
        distance = np.hypot(ramp[:, None], ramp[None, :])
        alpha = np.clip(1 - distance, 0, 1) ** 2 * 255 * strength
        corner = (int(center[0] * SUPERSAMPLING - size / 2), int(center[1] * SUPERSAMPLING - size / 2))
        self._image.paste(color, (*corner, corner[0] + size, corner[1] + size), Image.fromarray(alpha.astype(np.uint8)))

    def shadow(self, points: Points, strength: float) -> None:
        """Darken a polygon of the picture."""
        low = np.floor(points.min(axis=0) * SUPERSAMPLING).astype(int)
        high = np.ceil(points.max(axis=0) * SUPERSAMPLING).astype(int) + 1
        limit = np.array(self._image.size)
        low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
        if (high <= low).any():
            return
        stencil = Image.new("L", (int(high[0] - low[0]), int(high[1] - low[1])), 0)
        ImageDraw.Draw(stencil).polygon((points * SUPERSAMPLING - 0.5 - low).ravel().tolist(), fill=int(255 * strength))
        self._image.paste((16, 18, 28), (int(low[0]), int(low[1]), int(high[0]), int(high[1])), stencil)

    def finish(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """The picture uint8 [H, W, 3], reduced to its size, and the mask uint8 [H, W]."""
        return np.asarray(self._image.reduce(SUPERSAMPLING)), np.asarray(self._mask)
