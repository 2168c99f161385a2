"""What `fcn --help` shows besides options: groups of commands, examples, further reading."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from cyclopts import App, CycloptsError, Group, MissingArgumentError

GROUPS = {
    "Segment images": ("segment", "preview"),
    "Inspect results": ("runs", "report", "query", "rank", "compare", "audit", "masks", "verify", "compact", "gc"),
    "Train and evaluate": ("data", "train", "evaluate", "retrain", "distil"),
    "Manage models": ("model", "registry"),
    "Setup and help": ("doctor", "--install-completion", "--help", "--version"),
}
"""Commands by purpose, in the order of the help page."""

_GROUP_OF = {
    name: group
    for order, (title, names) in enumerate(GROUPS.items())
    for group in [Group(title, sort_key=order)]
    for name in names
}

EXAMPLES: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {
    (): (
        ("preview one image", "fcn preview photo.jpg --model model/"),
        ("segment a folder; run it again for what is new", "fcn segment photos/ labels/ --model model/"),
        ("make a report", "fcn report labels/"),
        ("train on your own classes", "fcn data check mydata/ && fcn train job.yaml"),
        ("find out what is wrong", "fcn doctor s3://bucket/labels"),
    ),
    ("segment",): (
        ("a folder", "fcn segment photos/ labels/ --model model/"),
        ("only the first ten images, as a trial", "fcn segment photos/ labels/ --model model/ --limit 10"),
        ("a bucket", "fcn segment s3://cameras/2026/ s3://labels/2026/ --model registry:street@champion"),
        (
            "the keys of a list, without listing the source",
            "fcn segment s3://cameras s3://labels --model model/ --key-list new.csv",
        ),
        ("options from a file; the command line wins", "fcn segment --config job.yaml --retry-errors"),
        ("estimate work, time and cost", "fcn segment photos/ labels/ --model model/ --dry-run"),
    ),
    ("masks",): (
        ("one mask, in whatever format", "fcn masks get labels/ cam1/a.jpg -o a.png"),
        ("all masks, under plain names", "fcn masks export labels/ plain/"),
        (
            "the least sure ones as polygons for COCO's tools",
            'fcn masks export labels/ coco/ --format polygons --tolerance 1 --where "confidence < 0.8"',
        ),
    ),
    ("gc",): (
        ("list leftovers", "fcn gc labels/"),
        ("remove leftovers older than a week", "fcn gc labels/ --delete --older-than 7d"),
    ),
    ("audit",): (
        ("how wide would intervals be?", "fcn audit plan labels/ -n 300 --dry-run"),
        ("draw 300 images, as tasks for Label Studio", "fcn audit plan labels/ -n 300 -o audit/"),
        ("when they are annotated", "fcn audit estimate audit/ annotated/"),
        ("later: also cover what is new", "fcn audit extend audit/ -n 50"),
    ),
    ("preview",): (
        ("the image, its mask and a legend side by side", "fcn preview photo.jpg --model model/ -o look.png"),
    ),
    ("train",): (
        ("options from a file; the same command resumes", "fcn train job.yaml"),
        (
            "without a file",
            "fcn train --name roofs --output training/ --dataset mydata/ --model start/ --new-head --train.epochs 30",
        ),
        ("scores of five folds, cameras kept together", "fcn train job.yaml --cross-validate 5 --folds-by camera"),
        ("on the GPUs of a Ray cluster", "fcn train job.yaml --ray-address ray-head:6379 --workers 1-8 --use-gpu"),
    ),
    ("distil",): (
        ("what the teacher on everything would cost, and what a student", "fcn distil distil.yaml --dry-run"),
        ("options from a file; the same command resumes", "fcn distil distil.yaml"),
    ),
    ("retrain",): (
        ("options from a file; the same command resumes", "fcn retrain retrain.yaml"),
        ("require a larger margin for promotion", "fcn retrain retrain.yaml --margin 0.02"),
    ),
    ("evaluate",): (
        ("on split val", "fcn evaluate model/ mydata/"),
        ("on another split, and save the scores", "fcn evaluate model/ mydata/ --split test --output scores/"),
    ),
    ("data",): (
        ("before training", "fcn data check mydata/"),
        ("what a mask contains", "fcn data show photo.jpg mask.png --labels voc"),
    ),
    ("model",): (
        ("the available networks and their cost", "fcn model list --size 1920x1080"),
        (
            "published weights for your own classes",
            "fcn model get resnet50 --arch fcn8s --labels mine.json -o start/",
        ),
    ),
    ("registry",): (
        ("publish, then use", "fcn registry publish street model/ --registry s3://company/registry"),
        ("the current champion and its history", "fcn registry champion street --history"),
    ),
    ("doctor",): (
        ("this machine", "fcn doctor"),
        (
            "also whether a job can read the source and write the output",
            "fcn doctor s3://labels/2026 --source s3://cameras/2026",
        ),
    ),
}
"""Examples by command: pairs of a purpose and a command line."""

HELP_FLAGS = {"--help", "-h"}
_WITH_SUBCOMMANDS = {(), ("data",), ("masks",), ("model",), ("registry",)}
READ_ON = "See also: README.md, docs/tutorial.md (your own data, from images to a report), and docs/ for each command."


def print_examples(app: App, tokens: Sequence[str]) -> None:
    """Below a help page: what to type. Prints nothing for a command line that asked for no help."""
    chain, _, unused = app.parse_commands(list(tokens))
    if not (HELP_FLAGS & {*chain, *unused} or (not unused and tuple(chain) in _WITH_SUBCOMMANDS)):
        return
    examples = EXAMPLES.get(tuple(name for name in chain if name not in HELP_FLAGS), ())
    screen = app.console
    if examples:
        screen.print("Examples", style="bold", highlight=False)
    for what, line in examples:
        # Lines to copy stay in one piece, however narrow the terminal.
        screen.print(f"  # {what}", style="dim", markup=False, highlight=False, soft_wrap=True)
        screen.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if not set(chain) - HELP_FLAGS:
        screen.print(f"\n{READ_ON}", markup=False, highlight=False)


def group_commands(app: App) -> None:
    """Put the commands that are there into their groups. Looks at each, so those that load late come after this."""
    for name in _GROUP_OF:
        if name in app:
            app[name].group = group_of(name)
            app[name].sort_key = sort_key_of(name)


def group_of(name: str) -> Group:
    """The group of a command on the help page."""
    return _GROUP_OF[name]


def sort_key_of(name: str) -> int:
    """Its place there."""
    return list(_GROUP_OF).index(name)


def own_version() -> str:
    """The installed version."""
    return version("fcn-pipeline")


def usage_message(error: CycloptsError) -> str:
    """What is wrong with a command line, in a line."""
    message = " ".join(str(error).split())
    argument: Any = error.argument
    if not isinstance(error, MissingArgumentError) or argument is None:
        return message
    if error.keyword or argument.tokens:
        return _several_words(error) or message
    positional = argument.field_info.kind is not argument.field_info.KEYWORD_ONLY and "." not in argument.name
    name = argument.name.removeprefix("--").upper() if positional else argument.name
    what = " ".join((argument.parameter.help or "").split())
    about = f" ({what.rstrip('.')})" if what else ""
    hint = message[message.index("Did you mean") :] if "Did you mean" in message else ""
    return f"{name} is missing{about}{'. ' if hint else ''}{hint}"


def _several_words(error: MissingArgumentError) -> str | None:
    """What to type where an option of several values got them with commas, in one word; None for another fault."""
    argument: Any = error.argument
    wanted, _ = argument.token_count()
    given = next((word for word in error.tokens_so_far if "," in word), None)
    if wanted < 2 or given is None:
        return None
    name = error.keyword or argument.name
    words = " ".join(part.strip() for part in given.split(",") if part.strip())
    return f"{name} takes {wanted} values as words of their own: {name} {words}, not {given}"
