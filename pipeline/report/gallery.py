"""The gallery's part of the page: groups of pictures that can be turned over to photo, mask, overlay and what was
there before.

Each picture is a button: a click, Enter or Space shows the next layer. All layers are in the page, the overlay on top,
so that without scripts there is still something to see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fcn_core.labels import RGB
from fcn_core.text.printable import printable
from pipeline.numbers import percent, score
from pipeline.report.charts import swatch
from pipeline.report.markup import Html, el
from pipeline.report.pictures import ShownImage

LAYER_WORDS = {"overlay": "overlay", "photo": "photo", "mask": "mask", "before": "overlay of the earlier run"}
KEY_LENGTH = 72
CLASSES_NAMED = 3


@dataclass(frozen=True)
class GalleryGroup:
    """Pictures that were chosen for one reason."""

    group_id: str
    title: str
    why: str
    images: tuple[ShownImage, ...] = ()

    def with_images(self, images: Sequence[ShownImage]) -> "GalleryGroup":
        return replace(self, images=tuple(images))


def gallery(groups: Sequence[GalleryGroup], colors: Mapping[str, RGB], trouble: str) -> Html:
    """The section with all groups, their legend and the switch for all pictures."""
    layers = [name for name in LAYER_WORDS if any(_has(image, name) for group in groups for image in group.images)]
    return el(
        "section",
        el("h2", "Pictures", id="pictures-title"),
        el("p", trouble, class_="notice") if trouble else None,
        el("p", "No picture could be made of this run's images.", class_="quiet") if not groups else None,
        el("div", _switch(layers) if len(layers) > 1 else None, _legend(groups, colors), class_="toolbar")
        if groups
        else None,
        *(_group(group, colors) for group in groups),
        id="pictures",
        aria_labelledby="pictures-title",
    )


def _has(image: ShownImage, name: str) -> bool:
    return any(layer.name == name for layer in image.layers)


def _switch(layers: Sequence[str]) -> Html:
    """Radio buttons that turn all pictures at once; of use only with scripts, which show them."""
    words = {"overlay": "Overlay", "photo": "Photo", "mask": "Mask", "before": "Before"}
    choices = [
        el(
            "label",
            el("input", type="radio", name="layer", value=name, checked=index == 0),
            el("span", words[name]),
        )
        for index, name in enumerate(layers)
    ]
    return el("fieldset", el("legend", "Show all as"), *choices, class_="switch", hidden=True)


def _legend(groups: Sequence[GalleryGroup], colors: Mapping[str, RGB]) -> Html:
    """The classes that the pictures show, those of the most area first."""
    area: dict[str, float] = {}
    for group in groups:
        for image in group.images:
            for name, share in image.request.candidate.shares:
                area[name] = area.get(name, 0.0) + share
    names = sorted(area, key=lambda name: -area[name])
    items = [el("li", swatch(colors.get(name)), el("span", name)) for name in names]
    return el("ul", *items, class_="legend", aria_label="Classes and their colours")


def _group(group: GalleryGroup, colors: Mapping[str, RGB]) -> Html:
    title = f"group-{group.group_id}"
    cards = [_card(image, colors) for image in group.images]
    return el(
        "section",
        el("h3", group.title, id=title),
        el("p", group.why, class_="quiet"),
        el("ul", *cards, class_="gallery"),
        aria_labelledby=title,
    )


def _card(image: ShownImage, colors: Mapping[str, RGB]) -> Html:
    candidate = image.request.candidate
    first = image.layers[0].name
    name = _shortened(candidate.key, KEY_LENGTH)
    pictures = [
        el(
            "img",
            src=layer.uri,
            alt="",  # the button says what is shown
            width=image.width,
            height=image.height,
            data_layer=layer.name,
            class_=None if layer.name == first else "under",
            loading="lazy",
            decoding="async",
        )
        for layer in image.layers
    ]
    several = len(image.layers) > 1
    frame = el(
        "button" if several else "div",
        *pictures,
        el("span", LAYER_WORDS[first], class_="layer", aria_hidden="true"),
        type="button" if several else None,
        role=None if several else "img",
        class_="frame",
        data_name=name if several else None,
        aria_label=f"{name}: {LAYER_WORDS[first]}" + (", press for the next view" if several else ""),
    )
    shares = [
        el("li", swatch(colors.get(class_name)), el("span", f"{class_name} {percent(share)}"))
        for class_name, share in candidate.shares[:CLASSES_NAMED]
    ]
    return el(
        "li",
        frame,
        el("p", el("bdi", name), class_="key", title=printable(candidate.key)[:2000]),
        el(
            "p",
            f"confidence {score(candidate.confidence, 2)}" + (f", {image.request.note}" if image.request.note else ""),
            class_="note",
        ),
        el("ul", *shares, class_="shares"),
        class_="card",
    )


def _shortened(key: str, length: int) -> str:
    """A key of at most `length` characters, its middle left out: the ends tell more."""
    key = printable(key)
    if len(key) <= length:
        return key
    tail = (length - 3) * 2 // 3
    return f"{key[: length - 3 - tail]}...{key[-tail:]}"
