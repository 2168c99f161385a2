"""What Prefect tells people by itself: runs that fail or are late, too many failed images, new champions.

`deploy` makes four automations on Prefect's server, and a block for each place that messages go to. The one thing to
know: the server writes the messages, from templates, when something happens. All that came from outside (names of runs,
messages with keys and labels in them) goes through the macro `shown` and is code there: no link, no mention, no escape.
"""

import contextlib
import json
import sys
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.events import CHAMPION_PROMOTED, MODEL_RESOURCE
from pipeline.errors import InputError

WEBHOOK_BLOCK, SLACK_BLOCK = "fcn-notify-webhook", "fcn-notify-slack"

SLACK = ("https://hooks.slack.com/", "https://hooks.slack-gov.com/")

TOO_MANY = "Flow run encountered an exception: TooManyErrors: *"
"""The state's message of a run that `flows.segment.TooManyErrors` ended, whose kind of message is its own."""

LONGEST = 600
"""Characters of a text from outside that a message shows."""


@dataclass(frozen=True)
class Notification:
    """One automation. `text` is a template of the server's (Jinja) for a few lines; `kind` is for programs."""

    kind: str
    title: str
    trigger: EventTrigger
    text: str

    @property
    def name(self) -> str:
        return f"fcn: {self.title}"


def notifications(tag: str) -> list[Notification]:
    """All there are, about runs of deployments with `tag`. Champions count wherever their run was started."""
    return [
        Notification(
            "failed",
            "failed run",
            _on_run({"Failed", "Crashed", "TimedOut"}, tag, f"!{TOO_MANY}"),
            "Failed: {{ shown(flow.name) }} {{ shown(event.resource.name) }}\n"
            '{{ shown(event.resource["prefect.state-message"]) }}\n'
            "What is committed stays. Once the cause is mended, Retry on its page goes on from there:\n{{ page }}",
        ),
        Notification(
            "late",
            "late run",
            _on_run({"Late"}, tag),
            "Late: {{ shown(deployment.name) }} {{ shown(event.resource.name) }} has not started\n"
            "It was due at {{ shown(flow_run.expected_start_time) }}. Does a worker of pool "
            "{{ shown(flow_run.work_pool_name) }} run, and is it not busy with other runs?\n{{ page }}",
        ),
        Notification(
            "too_many_errors",
            "too many errors",
            _on_run({"Failed"}, tag, TOO_MANY),
            "Too many images failed: {{ shown(event.resource.name) }}\n"
            '{{ shown(event.resource["prefect.state-message"].partition("TooManyErrors: ")[2]) }}\n'
            "The artifact `errors` on the run's page counts them by reason:\n{{ page }}",
        ),
        Notification(
            "champion",
            "new champion",
            EventTrigger(
                posture=Posture.Reactive,  # an update sends only what is given here
                expect={CHAMPION_PROMOTED},
                match=ResourceSpecification({"prefect.resource.id": f"{MODEL_RESOURCE}.*"}),
            ),
            "New champion: {{ shown(event.payload.name) }} is version {{ shown(event.payload.version) }} now, "
            "promotion {{ event.payload.promotion | int }}\n{{ shown(event.payload.reason) }}\n"
            "{% if event.payload.previous %}To go back: {{ shown('fcn registry promote ' ~ event.payload.name ~ ' ' ~ "
            "event.payload.previous ~ ' --reason ...') }}\n{% endif %}{{ page }}",
        ),
    ]


def deploy(webhook: str | None, slack: str | None, tag: str) -> list[str]:
    """Make the automations say what happens at `webhook`, as JSON, and in the channel of `slack`, and nowhere else.

    Returns the names of the automations. The same again changes nothing. Raises InputError for what is no such URL and
    where there is no server to deploy to.
    """
    _check(webhook, slack)
    wanted = notifications(tag)
    with _server() as client:
        hook = None if webhook is None else _save(Webhook(url=SecretStr(webhook), headers=_JSON), WEBHOOK_BLOCK)
        channel = None if slack is None else _save(SlackWebhook(url=SecretStr(slack)), SLACK_BLOCK)
        for each in wanted:
            actions: list[ActionTypes] = []
            if hook is not None:
                actions.append(CallWebhook(block_document_id=hook, payload=payload(each)))
            if channel is not None:
                actions.append(SendNotification(block_document_id=channel, subject=each.name, body=body(each)))
            _put(client, AutomationCore(name=each.name, description=_ABOUT, trigger=each.trigger, actions=actions))
    _delete_blocks({WEBHOOK_BLOCK} if hook is None else set(), {SLACK_BLOCK} if channel is None else set())
    return [each.name for each in wanted]


def remove() -> list[str]:
    """Delete the automations and blocks that `deploy` made. Returns the names of those automations that there were."""
    found = []
    with _server() as client:
        for each in notifications(""):
            for automation in client.read_automations_by_name(each.name):
                client.delete_automation(automation.id)
                found.append(each.name)
    _delete_blocks({WEBHOOK_BLOCK}, {SLACK_BLOCK})
    return found


def body(notification: Notification) -> str:
    """The template of a message for people."""
    return _SHOWN + _page() + notification.text


def payload(notification: Notification) -> str:
    """The template of a JSON object: `text` as people read it (which Mattermost and others show), and for programs
    `kind`, `run_id` and `url`.
    """
    return (
        f"{_SHOWN}{_page()}{{%- set text %}}{notification.text}{{% endset -%}}"
        f'{{{{ {{"kind": {json.dumps(notification.kind)}, "text": text, "run_id": run_id, "url": page}} | tojson }}}}'
    )


_ABOUT = "Made by `python -m flows notify`, which makes it anew."

_JSON = SecretDict({"Content-Type": "application/json"})

_HIDDEN = "".join(
    f"\\U{code:08x}" for code in range(sys.maxunicode) if unicodedata.category(chr(code)) in {"Cc", "Cf", "Zl", "Zp"}
)
"""What draws nothing, turns directions or ends lines."""

_SHOWN = (
    f'{{%- set hidden = "{_HIDDEN}" -%}}'
    "{%- macro shown(value) -%}"
    '`{{ (value | default("-", true) | string).split() | join(" ") | list | reject("in", hidden) | join'
    f' | truncate({LONGEST}, true, "...", 0)'
    """ | replace("`", "'") | replace("<", "\\u2039") | replace(">", "\\u203a") }}`"""
    "{%- endmacro -%}"
)


def _page() -> str:
    """Sets `run_id` and `page`, the address of the run's page as this machine knows Prefect."""
    given = urlsplit(str(PREFECT_UI_URL.value()))
    address = urlunsplit((given.scheme, given.netloc.rpartition("@")[2], given.path.rstrip("/"), "", ""))
    return (
        '{%- set run_id = event.payload.flow_run_id or event.resource.id.rpartition(".")[2] -%}'
        f"{{%- set page = {json.dumps(address + '/runs/flow-run/')} ~ run_id -%}}"
    )


def _on_run(states: set[str], tag: str, message: str | None = None) -> EventTrigger:
    """When a run of a deployment with that tag enters one of those states. Runs within runs have no tags: what fails
    within a retraining is told once, of the retraining.
    """
    labels = {"prefect.resource.id": "prefect.flow-run.*"}
    if message is not None:
        labels["prefect.state-message"] = message
    return EventTrigger(
        posture=Posture.Reactive,
        expect={f"prefect.flow-run.{state}" for state in states},
        match=ResourceSpecification(labels),
        match_related=ResourceSpecification(
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{tag}"}
        ),
    )


def _check(webhook: str | None, slack: str | None) -> None:
    """Addresses are secrets: whoever has one can write there. So no message repeats one."""
    if webhook is None and slack is None:
        raise InputError(
            "where messages go to is not said; give --webhook or --slack, or set FCN_NOTIFY_WEBHOOK or FCN_NOTIFY_SLACK"
        )
    if webhook is not None and not _is_web_address(webhook):
        raise InputError("--webhook is no address of a web server; give all of it, as https://hooks.example.com/...")
    if slack is not None and not (slack.startswith(SLACK) and _is_web_address(slack)):
        raise InputError(
            f"--slack is no incoming webhook of Slack ({SLACK[0]}services/...), as Slack shows it in an app's "
            "settings; for other services use --webhook"
        )


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isascii() and text.isprintable()
    except ValueError:
        return False


@contextlib.contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    if not PREFECT_API_URL.value():
        raise InputError("which Prefect server is not said; set PREFECT_API_URL, as for `prefect deploy`")
    with get_client(sync_client=True) as client:
        yield client


def _save(block: Block, name: str) -> UUID:
    """Its id. What a block of that name was before is overwritten."""
    return cast(UUID, block.save(name, overwrite=True))


def _put(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Make the one automation of that name be this one."""
    there = client.read_automations_by_name(automation.name)
    if not there:
        client.create_automation(automation)
        return
    client.update_automation(there[0].id, automation)
    for another in there[1:]:
        client.delete_automation(another.id)


def _delete_blocks(webhooks: Collection[str], slacks: Collection[str]) -> None:
    for kind, names in ((Webhook, webhooks), (SlackWebhook, slacks)):
        for name in names:
            with contextlib.suppress(ObjectNotFound, ValueError):  # there was none
                kind.delete(name)
