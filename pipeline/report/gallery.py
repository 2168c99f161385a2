"""The gallery's part of a page: groups of pictures that can be turned over to photo, mask and overlay, or to truth,
prediction and difference.

Each picture is a button: a click, Enter or Space shows the next layer. All layers are in the page, the first on top,
so that without scripts there is still something to see. The script adds the enlarged view, and lets the legend's
entries show one class alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fcn_core.labels import RGB
from fcn_core.text.printable import printable
from pipeline.numbers import percent, score
from pipeline.report.charts import hex_color, swatch
from pipeline.report.markup import Html, el
from pipeline.report.pictures import ShownImage
from pipeline.report.summary import Summary


@dataclass(frozen=True)
class LayerKind:
    """What a layer is called, and which layer has the classes of its pixels. Without a `switch` it is not turned to."""

    word: str
    switch: str | None
    mask: str | None


LAYERS = {
    "overlay": LayerKind("overlay", "Overlay", "mask"),
    "difference": LayerKind("difference", "Difference", "prediction-mask"),
    "prediction": LayerKind("prediction", "Prediction", "prediction-mask"),
    "truth": LayerKind("truth", "Truth", "truth-mask"),
    "photo": LayerKind("photo", "Photo", None),
    "mask": LayerKind("mask", "Mask", "mask"),
    "before": LayerKind("before", None, None),
    "prediction-mask": LayerKind("mask of the prediction", None, None),
    "truth-mask": LayerKind("mask of the truth", None, None),
}
"""Ways to see an image. "before" stands beside the others; the masks by themselves are for the enlarged view."""

NO_PICTURE = "No picture could be made of these images."
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


def nothing_shown(summary: Summary) -> str:
    """Why a page of these results has no picture, should it have none."""
    return NO_PICTURE if summary.ok else "No image was segmented, so there is none to show."


def gallery(groups: Sequence[GalleryGroup], colors: Mapping[str, RGB], trouble: str, nothing: str = NO_PICTURE) -> Html:
    """The section with all groups, their legend and the switch for all pictures; or `nothing`, where there is none."""
    there = {layer.name for group in groups for image in group.images for layer in image.layers}
    layers = [name for name, kind in LAYERS.items() if kind.switch and name in there]
    return el(
        "section",
        el("h2", "Pictures", id="pictures-title"),
        el("p", trouble, class_="notice") if trouble else None,
        el("p", nothing, class_="quiet") if not groups else None,
        el("div", _switch(layers) if len(layers) > 1 else None, _legend(groups, colors), class_="toolbar")
        if groups
        else None,
        *(_group(group, colors) for group in groups),
        id="pictures",
        aria_labelledby="pictures-title",
    )


def _switch(layers: Sequence[str]) -> Html:
    """Radio buttons that turn all pictures at once; of use only with scripts, which show them."""
    choices = [
        el(
            "label",
            el("input", type="radio", name="layer", value=name, checked=index == 0),
            el("span", LAYERS[name].switch),
        )
        for index, name in enumerate(layers)
    ]
    return el("fieldset", el("legend", "Show all as"), *choices, class_="switch", hidden=True)


def _legend(groups: Sequence[GalleryGroup], colors: Mapping[str, RGB]) -> Html:
    """The classes that the pictures show, those of the most area first; a press shows one alone, with scripts."""
    area: dict[str, float] = {}
    for group in groups:
        for image in group.images:
            for name, share in image.request.candidate.shares:
                area[name] = area.get(name, 0.0) + share
    names = sorted(area, key=lambda name: -area[name])
    items = [el("li", _chip(name, colors.get(name))) for name in names]
    return el("ul", *items, class_="legend", aria_label="Classes and their colours")


def _chip(name: str, color: RGB | None) -> Html:
    return el(
        "button",
        swatch(color),
        el("span", name),
        type="button",
        class_="chip",
        disabled=True,  # the script enables it
        aria_pressed="false",
        data_color=hex_color(color) if color else None,
    )


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
    first = LAYERS[image.layers[0].name]
    name = _shortened(candidate.key, KEY_LENGTH)
    before = any(layer.name == "before" for layer in image.layers)
    pictures = [
        el(
            "img",
            src=layer.uri,
            alt="",  # the button says what is shown
            width=image.width,
            height=image.height,
            data_layer=layer.name,
            data_word=LAYERS[layer.name].word,
            data_mask=LAYERS[layer.name].mask or (first.mask if layer.name == "photo" else None),
            data_beside=LAYERS[layer.name].switch is None,
            class_="left" if layer.name == "before" else None if index == 0 else "under",
            loading="lazy",
            decoding="async",
        )
        for index, layer in enumerate(image.layers)
    ]
    several = sum(LAYERS[layer.name].switch is not None for layer in image.layers) > 1
    frame = el(
        "button" if several else "div",
        *pictures,
        el("span", "before", class_="layer was", aria_hidden="true") if before else None,
        el("span", first.word, class_="layer", aria_hidden="true"),
        type="button" if several else None,
        role=None if several else "img",
        class_="frame compared" if before else "frame",
        data_name=name,
        aria_label=f"{name}: {first.word}" + (", press for the next view" if several else ""),
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
            f"{image.request.note}, confidence " if image.request.note else "confidence ",
            score(candidate.confidence, 2),
            class_="note",
        ),
        el("ul", *shares, class_="shares"),
        class_="card wide" if before else "card",
    )


def _shortened(key: str, length: int) -> str:
    """A key of at most `length` characters, its middle left out: the ends tell more."""
    key = printable(key)
    if len(key) <= length:
        return key
    tail = (length - 3) * 2 // 3
    return f"{key[: length - 3 - tail]}...{key[-tail:]}"
