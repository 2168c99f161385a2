"""`fcn doctor`: whether this machine, its Ray and its storage are fit for work, and how to fix what is not."""

from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.common import DONE, FAILED, Flag

_STYLES = {"ok": "green", "note": "yellow", "wrong": "red"}


def doctor(
    *uris: str,
    source: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    registry: str | None = None,
    ray_address: str | None = None,
    no_ray: Flag = False,
    json: Flag = False,
) -> int:
    """Check Python, PyTorch, devices, memory, disk, Ray, storage and registry, and say how to fix problems.

    The exit code is 1 when something is wrong. Objects that it writes to see whether it may are deleted at once.

    Parameters
    ----------
    uris
        Folders, s3://, gs:// or az:// places that jobs are to write to: listing, writing, create-only writing, reading,
        deleting and the clock are tried there.
    source
        A place that is only read; may be given several times.
    registry
        The registry to look at. Default: FCN_REGISTRY.
    ray_address
        A Ray cluster to look at. Default: RAY_ADDRESS, else a Ray is started inside this process.
    no_ray
        Leave Ray out, which takes some seconds.
    json
        Print the findings as JSON.
    """
    from dataclasses import asdict

    from fcn_core.text.printable import printable
    from pipeline.cli.console import print_json, shown
    from pipeline.cli.terminal import Screen
    from pipeline.doctor import DoctorPlaces, Finding, examine

    places = DoctorPlaces(both=uris, sources=source, registry=registry, ray=not no_ray, ray_address=ray_address)
    screen = Screen(soft_wrap=True)
    findings: list[Finding] = []
    for finding in examine(places):
        findings.append(finding)
        if json:
            continue
        state = f"[{_STYLES[finding.state]}]{finding.state:5}[/]"
        screen.print(f"{state}  {shown(finding.check)}: {shown(finding.found)}")
        if finding.remedy:
            screen.print(f"       -> {printable(finding.remedy)}", markup=False)
    wrong = sum(finding.state == "wrong" for finding in findings)
    if json:
        print_json({"ok": not wrong, "findings": [asdict(finding) for finding in findings]})
    elif wrong:
        screen.print(f"\n{wrong} thing{'s are' if wrong > 1 else ' is'} wrong; what to do stands after each arrow")
    else:
        screen.print("\nnothing is wrong")
    return FAILED if wrong else DONE
