"""What a person sees of a training."""

import io

from rich.console import Console

from fcn_core.metrics import ConfusionMatrix
from pipeline.cli.console_train import observe, print_report, report_json
from pipeline.training.job import TrainReport
from pipeline.training.progress import TrainProgress, now
from tests.log_lines import without_time

PROGRESS = TrainProgress(
    name="street",
    stage="fcn16s",
    stage_number=2,
    stages=3,
    workers=4,
    step=30,
    steps=120,
    epoch=2.5,
    loss=0.75,
    learning_rate=1.5e-4,
    images_per_second=12.25,
    eta_seconds=600,
    val_mean_iou=0.5,
    best_mean_iou=0.625,
    updated=now(),
)


def lines(*progress: TrainProgress) -> list[str]:
    sink = io.StringIO()
    with observe(Console(file=sink, width=300)) as observer:
        observer.phase("training fcn16s (2 of 3)")
        observer.note("worker 1 died; going on from the newest checkpoint (failure 1)")
        for one in progress:
            observer.progress(one)
    return [without_time(line) for line in sink.getvalue().splitlines()]


def test_a_log_has_a_line_with_all_that_matters() -> None:
    phase, note, line = lines(PROGRESS)
    assert phase == 'phase="training fcn16s (2 of 3)"'
    assert note == 'note="worker 1 died; going on from the newest checkpoint (failure 1)"'
    assert line == (
        "run=street stage=fcn16s workers=4 step=30/120 epoch=2.50 loss=0.7500 learning_rate=0.00015 images_per_s=12.25 "
        "eta_s=600 val_mean_iou=0.5000 best_mean_iou=0.6250"
    )


def test_a_log_has_few_lines_but_every_validation_and_the_end() -> None:
    soon = PROGRESS.model_copy(update={"step": 31})
    validated = PROGRESS.model_copy(update={"step": 40, "val_mean_iou": 0.55})
    end = PROGRESS.model_copy(update={"step": 120, "val_mean_iou": 0.55})
    written = lines(PROGRESS, soon, validated, end)[2:]
    assert [line.split()[3] for line in written] == ["step=30/120", "step=40/120", "step=120/120"]


def test_before_the_first_step_there_is_nothing_to_say() -> None:
    assert len(lines(PROGRESS.model_copy(update={"loss": None}))) == 2


def test_a_terminal_has_a_bar() -> None:
    sink = io.StringIO()
    console = Console(file=sink, width=200, force_terminal=True)
    with observe(console) as observer:
        observer.phase("training [fcn8s]")
        observer.progress(PROGRESS)
    shown = sink.getvalue()
    assert "training [fcn8s]" in shown
    assert "step 30/120, epoch 2.5, loss 0.750, rate 0.00015, 12.2 images/s, 10 min left" in shown
    assert "val mean IoU 0.500 (best 0.625)" in shown


def test_the_end_says_where_the_model_is_and_how_good() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts[:] = [[3, 1], [0, 4]]
    scores = matrix.scores()
    report = TrainReport("finished", "street", "/runs/street", False, "/runs/street/model", "abc", scores, 120, 61.0, 2)
    sink = io.StringIO()
    print_report(Console(file=sink, width=200), report)
    assert sink.getvalue().splitlines() == [
        "run street finished: 120 steps in 1 min 1 s, 2 failures survived",
        "model abc is /runs/street/model",
        f"mean IoU {scores.mean_iou:.4f}, pixel accuracy 0.8750",
    ]
    assert report_json(report)["scores"]["pixels"] == 8
