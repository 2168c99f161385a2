"""Paints the parts of a street - houses, trees, cars, poles, people - into a picture and its mask at once.

A part is painted by projecting its corners, first what is far, last what is near, so that what hides what is
right in the picture and in the mask alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.demo.canvas import NEAR, Camera, Canvas, Color, Light, Part

# A car from the side: (metres from the tail, metres above the ground), from the tail's foot over the roof to
# the nose's.
CAR_PROFILE = ((0.0, 0.26), (0.05, 0.94), (0.62, 1.43), (2.15, 1.46), (3.0, 0.98), (4.1, 0.80), (4.2, 0.26))
TAIL, REAR_WINDOW, ROOF, WINDSCREEN, BONNET, NOSE = range(len(CAR_PROFILE) - 1)
SIDE_WINDOWS = (
    ((0.42, 0.98), (0.78, 1.35), (1.42, 1.38), (1.42, 0.98)),
    ((1.54, 0.98), (1.54, 1.38), (2.08, 1.38), (2.74, 0.98)),
)


Values = npt.NDArray[np.floating[Any]]


def _any_color(rng: np.random.Generator, low: float, high: float) -> Color:
    red, green, blue = rng.uniform(low, high, 3).tolist()
    return red, green, blue


@dataclass(frozen=True)
class Painter:
    """Where the parts are painted: one canvas, seen by one camera, in one light, varied by one generator."""

    canvas: Canvas
    camera: Camera
    light: Light
    rng: np.random.Generator

    def ground(self, x0: float, x1: float, z0: float, z1: float, color: Color, part: Part | None) -> None:
        """A rectangle on the ground, cut into pieces in depth so that the haze can grow with distance."""
        cuts = np.geomspace(z0, z1, 2 + int(4 * np.log(z1 / z0)))
        for near, far in zip(cuts[-2::-1], cuts[:0:-1], strict=True):
            corners = np.array([[x0, 0, near], [x1, 0, near], [x1, 0, far], [x0, 0, far]], dtype=float)
            shade = self.light.shade(color, 1.0, float(near + far) / 2)
            self.canvas.polygon(self.camera.project(corners), shade, part)

    def box_face(self, corners: Sequence[Sequence[float]], color: Color, brightness: float, part: Part | None) -> None:
        """A flat face given by its world corners."""
        points = np.array(corners, dtype=float)
        shade = self.light.shade(color, brightness, float(points[:, 2].mean()))
        self.canvas.polygon(self.camera.project(points), shade, part)

    def building(self, side: int, x: float, z0: float, z1: float, height: float, color: Color) -> None:
        """A house along the street: its facade at `side * x` from z0 to z1, and the wall it turns to the
        camera."""
        rng, light = self.rng, self.light
        outer = x + 14.0
        facing_camera = light.side(0) * 0.92
        facing_street = light.side(-side)
        wall = [[side * x, 0, z0], [side * outer, 0, z0], [side * outer, height, z0], [side * x, height, z0]]
        facade = [[side * x, 0, z0], [side * x, 0, z1], [side * x, height, z1], [side * x, height, z0]]
        if z0 > NEAR:
            self.box_face(wall, color, facing_camera, Part.BUILDING)
        self.box_face(facade, color, facing_street, Part.BUILDING)
        trim: Color = (color[0] * 0.72, color[1] * 0.72, color[2] * 0.72)
        cornice = [[side * x, height, z0], [side * x, height, z1]]
        drop = [[side * x, height - 0.5, z1], [side * x, height - 0.5, z0]]
        self.box_face([*cornice, *drop], trim, facing_street, None)

        storey, shop = rng.uniform(2.9, 3.5), rng.random() < 0.55
        floors = max(1, int((height - 1.0) / storey))
        glass: Color = (62, 78, 98) if rng.random() < 0.6 else (92, 112, 128)
        frame: Color = (232, 228, 218) if rng.random() < 0.5 else trim
        pitch = rng.uniform(2.3, 3.2)
        if shop:
            awning = _any_color(rng, 60, 190)
            low, high = 0.4, storey - 0.5
            end = z1 - 0.4
            self.box_face(
                [
                    [side * x, low, z0 + 0.4],
                    [side * x, low, end],
                    [side * x, high, end],
                    [side * x, high, z0 + 0.4],
                ],
                (48, 52, 60),
                facing_street,
                None,
            )
            self.box_face(
                [[side * x, high, z0 + 0.3], [side * x, high, end], [side * x, high + 0.5, end],
                 [side * x, high + 0.5, z0 + 0.3]],
                awning, facing_street, None,
            )  # fmt: skip
        bottoms = 0.9 + storey * np.arange(1 if shop else 0, floors)
        along_facade = np.arange(z0 + 0.8, z1 - 1.4, pitch)
        self._windows(bottoms, along_facade, "z", side * x, frame, glass, facing_street)
        if z0 > NEAR + 3:
            self._windows(bottoms, side * np.arange(x + 0.9, outer - 1.4, pitch), "x", z0, frame, glass, facing_camera)

    def _windows(
        self,
        bottoms: Values,
        starts: Values,
        axis: str,
        fixed: float,
        frame: Color,
        glass: Color,
        brightness: float,
    ) -> None:
        """A grid of windows on a wall that runs along `axis`, the other ground coordinate being `fixed`."""
        if not len(bottoms) or not len(starts):
            return
        nearest = float(np.abs(starts).min()) if axis == "z" else fixed
        if self.camera.focal * 1.1 / max(nearest, NEAR) < 1.5:
            return  # smaller than a pixel and a half even where it is nearest
        along, up = (grid.ravel() for grid in np.meshgrid(starts, bottoms))
        step = np.sign(along) if axis == "x" else np.ones_like(along)
        for margin, color in ((0.14, frame), (0.0, glass)):
            a0, a1 = along - margin * step, along + (1.15 + margin) * step
            y0, y1 = up - margin, up + 1.55 + margin
            ends = np.stack([np.stack([a0, a1, a1, a0], -1), np.stack([y0, y0, y1, y1], -1)], -1)
            corners = np.empty((len(along), 4, 3))
            corners[..., 1] = ends[..., 1]
            corners[..., 2 if axis == "z" else 0] = ends[..., 0]
            corners[..., 0 if axis == "z" else 2] = fixed
            pixels = self.camera.project(corners)
            extent = pixels.max(axis=1) - pixels.min(axis=1)
            seen = (extent.min(axis=1) > 0.7) & (pixels.max(axis=1) > 0).all(1)
            seen &= (pixels.min(axis=1) < self.canvas.size).all(1)
            lit = self.rng.random(len(along)) < 0.55 * self.light.dusk
            tone = self.rng.uniform(0.75, 1.25, len(along))
            for k in np.flatnonzero(seen):
                if margin == 0.0 and lit[k]:
                    shade = (250, int(205 * min(tone[k], 1.1)), 120)
                else:
                    vary = tone[k] if margin == 0.0 else 1.0
                    shade = self.light.shade(color, brightness * vary, float(corners[k, 0, 2]))
                self.canvas.polygon(pixels[k], shade, None)

    def tree(self, x: float, z: float, height: float, green: Color) -> None:
        """A trunk and a crown of overlapping discs, dark below and bright towards the sun."""
        rng, light = self.rng, self.light
        scale = self.camera.focal / z
        foot, top = self.camera.project(np.array([[x, 0, z], [x, height, z]], dtype=float))
        self._ground_shadow(x, z, height * 0.28, 0.30)
        bole = light.shade((92, 72, 54), 0.9, z)
        w = max(0.10 * scale, 0.6)
        fork = foot[1] - 0.5 * height * scale
        trunk = [[foot[0] - w * 1.3, foot[1]], [foot[0] + w * 1.3, foot[1]], [foot[0] + w * 0.7, fork]]
        self.canvas.polygon(np.array([*trunk, [foot[0] - w * 0.7, fork]]), bole, Part.TREE)
        crown = height * 0.33 * scale
        center = np.array([top[0], top[1] + crown])
        count = 16 if crown < 12 else 46
        angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
        spots = np.stack([np.cos(angle) * 0.82, np.sin(angle)], -1) * reach[:, None]
        # From below and away from the sun, upwards and towards it: the bright leaves end up on top.
        facing = spots[:, 0] * light.sun * 0.5 - spots[:, 1] + rng.normal(0, 0.3, count)
        for k in np.argsort(facing):
            radius = crown * rng.uniform(0.22, 0.36) * (1.1 - 0.4 * reach[k])
            shade = light.shade(green, 0.72 + 0.24 * float(facing[k]), z)
            part = Part.TREE
            self.canvas.ellipse(center + spots[k] * crown * 0.85, (radius, radius * 0.9), shade, part)

    def pole(self, x: float, z: float, kind: str) -> None:
        """A street lamp or a traffic sign; both are labelled pole."""
        side = 1 if x > 0 else -1
        height = 6.2 if kind == "lamp" else 2.7
        scale = self.camera.focal / z
        foot, top = self.camera.project(np.array([[x, 0, z], [x, height, z]], dtype=float))
        half = max(0.11 * scale, 1.0)
        grey: Color = (96, 100, 104) if kind == "lamp" else (150, 152, 152)
        shade = self.light.shade(grey, 0.8, z)
        self._upright(top[0], top[1], foot[1], half, shade)
        bright = self.light.shade(grey, 1.25, z)
        edge = half * 0.35 * (1 if self.light.sun > 0 else -1)
        lit = np.array([[top[0], top[1]], [top[0] + edge, top[1]], [top[0] + edge, foot[1]], [top[0], foot[1]]])
        self.canvas.polygon(lit, bright, None)
        if kind == "lamp":
            arm = 1.5 * scale * -side
            tip = np.array([top[0] + arm, top[1] - 0.15 * scale])
            thick = np.array([0.0, half * 1.5])
            bar = np.array([top, top + thick, tip + thick, tip])
            self.canvas.polygon(bar, shade, Part.POLE)
            self.canvas.ellipse(tip, (max(0.34 * scale, 1.0), max(0.12 * scale, 0.8)), shade, Part.POLE)
            if self.light.dusk > 0.4:
                self.canvas.glow(tip, 1.5 * scale + 4, (255, 226, 160), 0.85)
        else:
            plate = max(0.42 * scale, 1.5)
            border, face = (((200, 40, 36), (236, 234, 230)), ((30, 84, 170), (60, 120, 200)))[
                int(self.rng.integers(2))
            ]
            self.canvas.ellipse(top, (plate, plate), self.light.shade(border, 1.05, z), Part.POLE)
            self.canvas.ellipse(top, (plate * 0.7, plate * 0.7), self.light.shade(face, 1.05, z), None)

    def _upright(self, x: float, top: float, foot: float, half: float, shade: tuple[int, int, int]) -> None:
        corners = np.array([[x - half, top], [x + half, top], [x + half, foot], [x - half, foot]])
        self.canvas.polygon(corners, shade, Part.POLE)

    def person(self, x: float, z: float, height: float) -> None:
        """Somebody walking: legs apart, one arm forward, in the clothes of the day."""
        rng = self.rng
        scale = self.camera.focal / z * height
        foot = self.camera.project(np.array([x, 0.0, z]))
        self._ground_shadow(x, z, 0.34, 0.35)
        coat, trousers, pale = _any_color(rng, 30, 215), _any_color(rng, 25, 95), rng.uniform(0.45, 1.0)
        tones = [self.light.shade(tone, 0.95, z) for tone in (coat, trousers, (226 * pale, 182 * pale, 150 * pale))]
        stride, lean = rng.uniform(0.04, 0.14), rng.uniform(-0.02, 0.02)

        def limb(x0: float, y0: float, x1: float, y1: float, width: float, tone: tuple[int, int, int]) -> None:
            start, end = np.array([x0, -y0]), np.array([x1, -y1])
            across = np.array([-(end - start)[1], (end - start)[0]])
            across *= width / 2 / np.hypot(*across)
            outline = np.array([start + across, start - across, end - across * 0.8, end + across * 0.8])
            self.canvas.polygon(foot + outline * scale, tone, Part.PERSON)

        hip, neck = 0.48, 0.83
        limb(0.02, hip, stride, 0.0, 0.105, tones[1])
        limb(-0.02, hip, -stride, 0.0, 0.105, tones[1])
        limb(lean, neck - 0.03, stride * 1.1, hip + 0.02, 0.075, tones[0])
        limb(0.0, hip - 0.03, lean, neck, 0.215, tones[0])
        dark = self.light.shade(coat, 0.75, z)
        limb(lean - 0.03, neck - 0.03, -stride * 1.2, hip + 0.02, 0.07, dark)
        head = foot + np.array([lean, -0.92]) * scale
        self.canvas.ellipse(head, (0.062 * scale, 0.078 * scale), tones[2], Part.PERSON)
        hair = self.light.shade((58, 44, 36), 0.9, z)
        self.canvas.ellipse(head - [0, 0.03 * scale], (0.064 * scale, 0.052 * scale), hair, Part.PERSON)

    def car(self, x: float, z: float, color: Color, oncoming: bool) -> None:
        """A car whose near end is at depth z and whose middle is at x: a side profile drawn out to a body."""
        length = CAR_PROFILE[-1][0]
        half = 0.88

        def at(along: float, up: float, across: float) -> list[float]:
            """A point of the car, `along` from its tail, as a world point; `across` -1 (left) to 1
            (right)."""
            return [x + across * half, up, z + (length - along if oncoming else along)]

        def strip(i: int, tone: Color, brightness: float, part: Part | None, inset: float = 0.0) -> None:
            """The body between two corners of the profile; `inset` leaves a frame of that share all round."""
            (a0, y0), (a1, y1) = CAR_PROFILE[i], CAR_PROFILE[i + 1]
            da, dy, w = (a1 - a0) * inset, (y1 - y0) * inset, 1 - 1.2 * inset
            low, high = (a0 + da, y0 + dy), (a1 - da, y1 - dy)
            corners = [at(*low, -w), at(*low, w), at(*high, w), at(*high, -w)]
            self.box_face(corners, tone, brightness, part)

        def patch(along: float, low: float, high: float, left: float, right: float, tone: Color) -> None:
            """A plate, lamp or grille on the near end."""
            corners = [
                at(along, low, left),
                at(along, low, right),
                at(along, high, right),
                at(along, high, left),
            ]
            self.box_face(corners, tone, 1.0, None)

        shade, facing = self.light.shade, self.light.side
        self._car_shadow(x, z, length, half)
        for wheel in (-0.88, 0.88):
            near_axle = length - 0.6 if oncoming else 0.6
            inner = wheel * 0.72
            tyre = [at(near_axle, 0.0, wheel), at(near_axle, 0.0, inner), at(near_axle, 0.45, inner)]
            self.box_face([*tyre, at(near_axle, 0.45, wheel)], (24, 24, 26), 1.0, Part.CAR)

        glass: Color = (58, 72, 86)
        strip(ROOF, color, 1.18, Part.CAR)
        if oncoming:
            strip(WINDSCREEN, color, facing(0), Part.CAR)
            strip(WINDSCREEN, (84, 100, 114), 1.0, None, 0.12)
            strip(BONNET, color, 1.12, Part.CAR)
            strip(NOSE, color, facing(0), Part.CAR)
            patch(length, 0.30, 0.44, -0.8, 0.8, (40, 42, 46))
            lamp: Color = (255, 250, 225) if self.light.dusk > 0.4 else (226, 230, 234)
            for left in (-0.92, 0.52):
                patch(length, 0.58, 0.76, left, left + 0.40, lamp)
        else:
            strip(REAR_WINDOW, color, facing(0), Part.CAR)
            strip(REAR_WINDOW, glass, 1.0, None, 0.13)
            strip(TAIL, color, facing(0) * 0.96, Part.CAR)
            patch(0.0, 0.30, 0.42, -0.9, 0.9, (42, 44, 48))
            patch(0.0, 0.58, 0.70, -0.28, 0.28, (228, 226, 210))
            lamp = (255, 60, 44) if self.light.dusk > 0.4 else (186, 30, 30)
            for left in (-0.98, 0.62):
                patch(0.0, 0.66, 0.88, left, left + 0.36, lamp)

        across = 1.0 if x < self.camera.across else -1.0  # the side turned to the camera
        middle = z + length / 2
        side = np.array([at(along, up, across) for along, up in CAR_PROFILE])
        self.canvas.polygon(self.camera.project(side), shade(color, facing(across) * 0.95, middle), Part.CAR)
        for window in SIDE_WINDOWS:
            pane = np.array([at(along, up, across) for along, up in window])
            self.canvas.polygon(self.camera.project(pane), shade(glass, facing(across), middle), None)
        turn = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        for axle in (0.82, length - 0.86):
            for radius, tone, part in ((0.40, (20, 20, 22), Part.CAR), (0.20, (150, 152, 156), None)):
                rim = [at(axle + radius * np.cos(t), 0.34 + min(radius, 0.34) * np.sin(t), across) for t in turn]
                self.canvas.polygon(self.camera.project(np.array(rim)), shade(tone, 0.9, middle), part)
        if oncoming and self.light.dusk > 0.4:
            for end in (-0.7, 0.7):
                spot = self.camera.project(np.array(at(length, 0.67, end)))
                self.canvas.glow(spot, 0.9 * self.camera.focal / z + 3, (255, 244, 214), 0.8)

    def _car_shadow(self, x: float, z: float, length: float, half: float) -> None:
        lean = -0.5 * self.light.sun
        low, high = x - half - 0.12 + min(lean, 0), x + half + 0.12 + max(lean, 0)
        corners = [
            [low, 0, z - 0.15],
            [high, 0, z - 0.15],
            [high, 0, z + length + 0.15],
            [low, 0, z + length + 0.15],
        ]
        self.canvas.shadow(self.camera.project(np.array(corners, dtype=float)), 0.62)

    def _ground_shadow(self, x: float, z: float, radius: float, strength: float) -> None:
        """The shadow of something upright, thrown to the side away from the sun."""
        turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        stretch = 1.0 + 0.8 * abs(self.light.sun)
        ring = np.stack(
            [
                x - self.light.sun * radius + radius * stretch * np.cos(turn),
                0 * turn,
                z + radius * np.sin(turn),
            ],
            -1,
        )
        self.canvas.shadow(self.camera.project(ring), strength * (1 - 0.6 * self.light.dusk))
