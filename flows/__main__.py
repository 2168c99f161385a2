"""Run a flow from a terminal: `python -m flows segment SOURCE OUTPUT --model MODEL`.

Uses the Prefect server that PREFECT_API_URL or the active profile names, else an ephemeral one inside the process.
"""

import sys
from typing import Annotated

from cyclopts import App, Parameter

from flows.environment import prepare_prefect, start_prefect
from pipeline.cli_common import BAD_INPUT, FAILED, INTERRUPTED
from pipeline.errors import InputError, PipelineError
from pipeline.job_options import SegmentJob, SegmentOptions

app = App(name="python -m flows", help="Run a flow here and now.", suppress_keyboard_interrupt=False)


@app.command
def segment(source: str, output: str, *, options: Annotated[SegmentOptions, Parameter(name="*", negative="")]) -> None:
    """Label what is new under SOURCE, as a Prefect flow run. The options are those of `fcn segment`."""
    from flows.segment import segment as flow

    start_prefect()
    summary = flow(SegmentJob(source=source, output=output, **options.model_dump()))
    print(summary.model_dump_json(indent=2))


def main() -> None:
    prepare_prefect()
    try:
        app()
    except PipelineError as error:
        print(f"flow failed: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT if isinstance(error, InputError) else FAILED)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
