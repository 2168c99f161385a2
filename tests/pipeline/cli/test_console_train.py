"""What a person sees of a training."""

import io
from dataclasses import replace

from rich.console import Console

from fcn_core.metrics import ConfusionMatrix
from pipeline.cli.console_train import observe, print_report, report_json
from pipeline.jobs.train import TrainJob
from pipeline.training.progress import TrainProgress, now
from pipeline.training.report import TrainReport
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
    report = replace(report, report_uri="/runs/street/report.html")
    sink = io.StringIO()
    print_report(Console(file=sink, width=200), report)
    assert sink.getvalue().splitlines() == [
        "run street finished: 120 steps in 1 min 1 s, 2 failures survived",
        "model abc is /runs/street/model",
        "report: /runs/street/report.html",
        f"mean IoU {scores.mean_iou:.4f}, pixel accuracy 0.8750",
    ]
    assert report_json(report)["scores"]["pixels"] == 8
    assert report_json(report)["report"] == "/runs/street/report.html"


def test_every_validation_stays_on_the_terminal() -> None:
    sink = io.StringIO()
    with observe(Console(file=sink, width=120, force_terminal=True)) as observer:
        observer.phase("training fcn16s (2 of 3)")
        for step, iou in ((30, 0.5), (31, 0.5), (60, 0.55), (61, 0.55)):
            update = {"step": step, "val_mean_iou": iou, "best_mean_iou": iou}
            observer.progress(PROGRESS.model_copy(update=update))
    shown = sink.getvalue()
    assert shown.count("fcn16s, step 30, epoch 2.5: val mean IoU 0.500 (best 0.500), loss 0.750") == 1
    assert shown.count(": val mean IoU 0.550 (best 0.550), loss 0.750") == 1
    assert shown.count(": val mean IoU") == 2


def test_the_bar_has_all_its_numbers_at_120_columns() -> None:
    sink = io.StringIO()
    with observe(Console(file=sink, width=120, force_terminal=True)) as observer:
        observer.phase("training fcn16s (2 of 3)")
        observer.progress(PROGRESS.model_copy(update={"step": 1230, "steps": 12_000, "epoch": 12.5}))
    assert "step 1230/12000, epoch 12.5, loss 0.750, 12.2 images/s, 10 min left" in sink.getvalue()


def test_a_training_ends_with_its_classes_and_what_to_do_next() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts[:] = [[3, 1], [0, 4]]
    report = TrainReport(
        "finished", "street", "/runs/street", False, "/runs/street/model", "abc", matrix.scores(), 120, 61.0, 2,
        classes=("road [x]", "sky"),
    )  # fmt: skip
    job = TrainJob(name="street", output="/runs", dataset="my data", model="m", preset="camvid", val_split="held out")
    sink = io.StringIO()
    print_report(Console(file=sink, width=60), report, job)
    lines = [" ".join(line.split()) for line in sink.getvalue().splitlines()]
    assert "road [x] 0.750" in lines
    assert "sky 0.800" in lines
    assert lines[-1] == "next: fcn evaluate /runs/street/model 'my data' --preset camvid --split 'held out'"
