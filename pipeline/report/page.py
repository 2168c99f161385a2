"""The document around the sections: head, style, script, and a policy that forbids the page to reach for anything.

The Content-Security-Policy names style and script by their digests, so that even markup that got in by mistake could
not run or load anything.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from fcn_core.labels import RGB
from pipeline.numbers import count, counted, duration
from pipeline.outputs.runs import RunRecord
from pipeline.report import sections
from pipeline.report.changes import Changes
from pipeline.report.gallery import GalleryGroup, gallery, nothing_shown
from pipeline.report.markup import Html, el
from pipeline.report.model_card import ModelCard
from pipeline.report.rerun import without_secrets
from pipeline.report.summary import Summary

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M0 0h16v6L0 10z' fill='%234682b4'/%3E%3Cpath d='M0 10l16-4v10H0z' fill='%23804080'/%3E%3C/svg%3E"
)

STATES = {
    "finished": "finished",
    "running": "still running when this page was made",
    "interrupted": "stopped before its end",
    "failed": "failed before its end",
}


@dataclass(frozen=True)
class Contents:
    """Everything that the page shows."""

    record: RunRecord
    output: str
    summary: Summary
    card: ModelCard
    colors: Mapping[str, RGB]
    changes: Changes | None
    groups: tuple[GalleryGroup, ...]
    photo_trouble: str


def page(contents: Contents) -> str:
    """The whole document."""
    return document(f"Run {contents.record.run_id}", _header(contents), _main(contents), _footer(contents))


def top_bar(skip_to: str, kicker: str) -> tuple[Html, Html]:
    """How the header of every page begins: the link past it, what kind of page it is, and the choice of a theme."""
    return (
        el("a", f"Skip to the {skip_to}", href="#main", class_="skip"),
        el(
            "div",
            el("p", f"fcn-pipeline {kicker}", class_="kicker"),
            el("button", "Theme: system", type="button", id="theme", hidden=True),
            class_="bar-top",
        ),
    )


def document(title: str, *body: Html) -> str:
    """A page of its own with the style and script of reports, and a policy that lets it load nothing."""
    style, script = _resource("report.css"), _resource("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        Html(f'<link rel="icon" href="{ICON}">'),
        Html(f"<style>{style}</style>"),
    )
    whole = el("html", head, el("body", *body, Html(f"<script>{script}</script>")), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def _header(contents: Contents) -> Html:
    record = contents.record
    links = [
        el("li", el("a", name, href=f"#{anchor}"))
        for anchor, name in (
            ("pictures", "Pictures"),
            ("classes", "Classes"),
            ("work", "Speed"),
            ("errors", "Errors"),
            ("model", "Model"),
            ("configuration", "Configuration"),
            ("rerun", "Run it again"),
        )
        if {"classes": contents.summary.ok, "work": contents.summary.images}.get(anchor, True)
    ]
    return el(
        "header",
        *top_bar("report", "run report"),
        el("h1", "Run ", el("span", record.run_id, class_="run-id")),
        el("p", *_lead(contents), class_="lead"),
        el("nav", el("ul", *links), aria_label="Parts of the report"),
    )


def _lead(contents: Contents) -> list[str]:
    record, summary = contents.record, contents.summary
    words, is_bad = _state(record, summary)
    look = "alarming" if is_bad else record.state if record.images or record.state != "finished" else "empty"
    state = el("span", words, class_=f"state {look}")
    when = f"{record.started:%d %B %Y, %H:%M} UTC"
    took = f", {duration(record.seconds)}" if record.seconds else ""
    source = without_secrets(str(record.job.get("source", "")))
    parts = [f"{counted(summary.images, 'image')} from ", el("bdi", source, class_="path"), f", {when}{took}, ", state]
    if summary.images < record.images:
        parts.append(f": {counted(record.images - summary.images, 'planned image')} not done yet")
    return [*parts, "."]


def _state(record: RunRecord, summary: Summary) -> tuple[str, bool]:
    """How the run stands in words, and whether that is bad though it is finished."""
    words = STATES[record.state]
    if not record.images:
        return f"{words}: there was no image to segment", False
    if not summary.mostly_failed:
        return words, False
    failed = summary.images - summary.ok
    what = f"{count(failed)} of {counted(summary.images, 'image')} failed" if summary.ok else "every image failed"
    return f"{words}, but {what}", True


def _main(contents: Contents) -> Html:
    record, summary, colors = contents.record, contents.summary, contents.colors
    errors, first = sections.errors(summary, record.images), summary.mostly_failed
    reason = f"The run ended with: {record.reason}" if record.reason else None
    return el(
        "main",
        el("p", reason, class_="notice") if reason else None,
        sections.headline(record, summary),
        errors if first else None,
        gallery(contents.groups, colors, contents.photo_trouble if summary.ok else "", nothing_shown(summary)),
        sections.classes(summary, colors, contents.card),
        sections.work(record, summary),
        None if first else errors,
        sections.model(record, contents.card, colors),
        sections.configuration(record, contents.output),
        sections.commands(record, summary, contents.output),
        id="main",
    )


def _footer(contents: Contents) -> Html:
    return el(
        "footer",
        el("p", f"Made by fcn-pipeline {contents.record.version}. This page is one file and loads nothing."),
    )


def _resource(name: str) -> str:
    return files("pipeline.report").joinpath(name).read_text("utf-8")


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
