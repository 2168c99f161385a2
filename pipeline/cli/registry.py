"""`fcn registry ...`: models in object storage, by name: list, show, publish, promote, champion."""

from datetime import UTC
from typing import TYPE_CHECKING, Any

from cyclopts import App

from pipeline.cli.common import DONE, TOO_MANY_ERRORS, Flag, Share
from pipeline.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from rich.table import Table

    from pipeline.models.registry import Champion, Version

registry_app = App(name="registry", help="Models in object storage, by name: list, show, publish, promote, champion.")


@registry_app.command(name="list")
def list_(name: str | None = None, *, registry: str | None = None, json: Flag = False) -> int:
    """List the names of a registry, or the versions of one name, newest first.

    Parameters
    ----------
    name
        A model's name. Default: all names, with their champions.
    registry
        Its folder or URI. Default: FCN_REGISTRY.
    json
        Print it as JSON.
    """
    from pipeline.cli import console
    from pipeline.cli.terminal import Screen
    from pipeline.models.registry import open_registry

    opened = open_registry(registry)
    opened.check_readable()
    if name is None:
        champions = {each: opened.champion(each) for each in opened.names()}
        if json:
            console.print_json([{"name": each, "champion": _json(found)} for each, found in champions.items()])
        elif champions:
            Screen().print(_names_table(champions))
        else:
            console.stderr_console().print(f"no models in {opened.uri}", markup=False)
        return DONE
    versions = opened.versions(name)
    champion = opened.champion(name)
    if json:
        console.print_json([_describe(version, champion) for version in versions])
    elif versions:
        Screen().print(_versions_table(versions, champion))
    else:
        console.stderr_console().print(f"no versions of {name} in {opened.uri}", markup=False)
    return DONE


@registry_app.command
def show(model: str, *, registry: str | None = None, json: Flag = False) -> int:
    """Show one version: what it is, how good it was said to be, when it was published.

    Parameters
    ----------
    model
        NAME or NAME@champion for the champion, NAME@VERSION for another.
    registry
        Its folder or URI. Default: FCN_REGISTRY.
    json
        Print it as JSON.
    """
    from pipeline.cli import console
    from pipeline.models.references import PREFIX
    from pipeline.models.registry import open_registry

    opened = open_registry(registry)
    resolved = opened.resolve(model if model.startswith(PREFIX) else PREFIX + model)
    version = opened.find(resolved.name, resolved.version)
    if version is None:
        raise InputError(f"{resolved.uri} was deleted at this very moment; list the versions again")
    description = _describe(version, opened.champion(resolved.name))
    if json:
        console.print_json(description)
        return DONE
    _print(description)
    return DONE


@registry_app.command
def publish(name: str, bundle: str, *, note: str | None = None, registry: str | None = None, json: Flag = False) -> int:
    """Make a model bundle a version of NAME. A model that is there already is left as it is.

    Parameters
    ----------
    name
        Letters, digits, '.', '_' and '-'.
    bundle
        The bundle: a folder or URI, or a model of this registry under another name (registry:OTHER@VERSION).
    note
        A few words to keep with it.
    registry
        Its folder or URI. Default: FCN_REGISTRY.
    json
        Print the outcome as JSON.
    """
    from pipeline.cli import console
    from pipeline.models.load import load_bundle
    from pipeline.models.references import check_name
    from pipeline.models.registry import open_registry

    check_name(name)
    opened = open_registry(registry)
    loaded = load_bundle(bundle, registry)
    before = opened.find(name, loaded.model_id)
    version = opened.publish(name, loaded, {"note": note} if note else None)
    if json:
        console.print_json({"name": name, "version": version, "new": before is None})
    elif before is None:
        print(f"{name}@{version} is published in {opened.uri}; `fcn registry promote` makes it the champion")
    else:
        print(f"{name}@{version} was in {opened.uri} already; nothing was changed")
    return DONE


@registry_app.command
def promote(
    name: str,
    version: str,
    *,
    reason: str,
    scores: str | None = None,
    audit: str | None = None,
    fail_bias: Share | None = None,
    fail_width: Share | None = None,
    after: int | None = None,
    registry: str | None = None,
    json: Flag = False,
) -> int:
    """Make VERSION the champion of NAME: jobs that name registry:NAME@champion take it from now on.

    Promoting an older version again is how to go back.

    Parameters
    ----------
    name
        The model's name.
    version
        One of `fcn registry list NAME`.
    reason
        Why, in a few words; kept for good.
    scores
        The OUTPUT of `fcn evaluate` for this version, to keep its scores with the promotion. Default: those in the
        model's own notes.
    audit
        Only if this audit (`fcn audit estimate`) of masks of this very model passes --fail-bias and --fail-width; else
        exit 3.
    fail_bias
        With --audit: do not promote when an interval excludes the model's share of a class by more than this.
    fail_width
        With --audit: do not promote when an interval of a class's share is wider than this.
    after
        Only if this is the number of the present champion (0: there is none).
    registry
        Its folder or URI. Default: FCN_REGISTRY.
    json
        Print the promotion as JSON.
    """
    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.models.registry import open_registry

    opened = open_registry(registry)
    opened.check_readable()
    found = opened.find(name, version)
    failed = _audited(audit, version, fail_bias, fail_width)
    if failed:
        console.stderr_console().print(f"not promoted: {printable(failed)}", markup=False)
        return TOO_MANY_ERRORS
    known = _evaluated(scores, version) if scores else found.description.scores if found else None
    number = opened.promote(name, version, reason, known or None, after=after)
    promotion = next(each for each in opened.promotions(name) if each.number == number)
    if json:
        console.print_json(_json(promotion))
        return DONE
    before = f", after {promotion.previous}" if promotion.previous else ", the first one"
    print(f"{name}@{version} is the champion of {name}: promotion {number}{before}")
    return DONE


@registry_app.command
def champion(name: str, *, history: Flag = False, registry: str | None = None, json: Flag = False) -> int:
    """Show which version is the champion of NAME, since when, and why.

    Parameters
    ----------
    name
        The model's name.
    history
        All promotions, newest first.
    registry
        Its folder or URI. Default: FCN_REGISTRY.
    json
        Print it as JSON.
    """
    from pipeline.cli import console
    from pipeline.cli.terminal import Screen
    from pipeline.models.references import PREFIX
    from pipeline.models.registry import open_registry

    opened = open_registry(registry)
    opened.resolve(f"{PREFIX}{name}")  # refuses what has none, by name
    promotions = opened.promotions(name)
    if json:
        console.print_json([_json(each) for each in promotions] if history else _json(promotions[0]))
    elif history:
        Screen().print(_promotions_table(promotions))
    else:
        _print(_json(promotions[0]) or {})
    return DONE


def _print(description: dict[str, Any]) -> None:
    from fcn_core.text.printable import printable

    for key, value in description.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner}={item}" for inner, item in value.items()) or None
        elif isinstance(value, list):
            value = ", ".join(value)
        print(f"{key:15}{printable('none' if value is None else str(value))}")


def _evaluated(output: str, version: str) -> dict[str, Any]:
    """The scores of an evaluation of `version`, and what they were measured on."""
    from pipeline.errors import ObjectMissing, StorageError, StorageUnavailable
    from pipeline.evaluation.files import SCORES_FILE, read_evaluation
    from pipeline.storage.opening import open_store

    try:
        record = read_evaluation(open_store(output))
    except StorageUnavailable:
        raise
    except ObjectMissing as error:
        raise InputError(f"{output} holds no {SCORES_FILE}; give the OUTPUT of `fcn evaluate`") from error
    except StorageError as error:
        raise InputError(str(error)) from error
    if record.model_id != version:
        raise InputError(f"{output} holds scores of model {record.model_id}, not of {version}; evaluate that one")
    return record.scores.model_dump(mode="json") | record.model_dump(include={"dataset", "split", "examples_digest"})


def _audited(audit: str | None, version: str, fail_bias: float | None, fail_width: float | None) -> str | None:
    """Why the audit of `version` does not allow its promotion; None where it does, or where none was asked."""
    from pipeline.audit.gate import AuditFailed, Gate, check_model
    from pipeline.storage.opening import open_store

    gate = Gate(fail_bias, fail_width)
    if audit is None:
        if gate != Gate():
            raise InputError("--fail-bias and --fail-width are about an audit; name it with --audit")
        return None
    if gate == Gate():
        raise InputError(f"--audit {audit} decides nothing by itself; add --fail-bias or --fail-width")
    try:
        check_model(open_store(audit), version, gate)
    except AuditFailed as error:
        return str(error)
    return None


def _json(promotion: "Champion | None") -> dict[str, Any] | None:
    return promotion.model_dump(mode="json", exclude={"token"}) if promotion else None


def _describe(version: "Version", champion: "Champion | None") -> dict[str, Any]:
    description = version.description
    is_champion = champion is not None and champion.version == version.version
    return {
        "name": version.name,
        "version": version.version,
        "uri": version.uri,
        "published": version.published.isoformat() if version.published else None,
        "notes": dict(version.notes),
        "champion": champion.number if champion and is_champion else None,
        "architecture": description.architecture.model_dump(mode="json"),
        "labels": description.labels.name,
        "classes": list(description.labels.names),
        "scores": description.scores,
        "provenance": {key: value for key, value in description.provenance.items() if key != "published"},
    }


def _names_table(champions: "Mapping[str, Champion | None]") -> "Table":
    rows = (
        (name, found.version, str(found.number), _time(found.time), found.reason) if found else (name, "none yet")
        for name, found in champions.items()
    )
    return _table(("name", "champion", "number", "since (UTC)", "reason"), rows)


def _versions_table(versions: "list[Version]", champion: "Champion | None") -> "Table":
    rows = (
        (
            version.version,
            str(champion.number) if champion and champion.version == version.version else "",
            _time(version.published) if version.published else "",
            version.description.architecture.title,
            _mean_iou(version.description.scores),
            ", ".join(str(value) for value in version.notes.values()),
        )
        for version in versions
    )
    return _table(("version", "champion", "published (UTC)", "network", "mean IoU", "notes"), rows)


def _promotions_table(promotions: "list[Champion]") -> "Table":
    rows = (
        (str(each.number), each.version, _time(each.time), _mean_iou(each.scores or {}), each.reason)
        for each in promotions
    )
    return _table(("number", "version", "time (UTC)", "mean IoU", "reason"), rows)


def _table(columns: tuple[str, ...], rows: "Iterable[tuple[str, ...]]") -> "Table":
    from rich.table import Table

    from pipeline.cli.console import shown

    table = Table(box=None, pad_edge=False)
    for column in columns:
        # What is copied into the next command stays in one piece, however narrow the terminal.
        whole = column in ("name", "version", "champion") or column.endswith("(UTC)")
        table.add_column(column, no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*(shown(cell) for cell in row))
    return table


def _time(time: "datetime") -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


def _mean_iou(scores: "Mapping[str, Any]") -> str:
    from pipeline.numbers import fixed

    value = scores.get("mean_iou")
    return fixed(value) if isinstance(value, float) else ""
