from fcn_core.trainer import StepReport
from flows.demo.bucket import FIRST_SEED
from flows.demo.model import DEMO_TRAINING, HELD_OUT_SEEDS, TRAINING_SEEDS, demo_dataset, train_demo_model
from flows.demo.scenes import SCENE_LABELS


def test_training_reports_progress_and_gives_a_scored_bundle():
    reports: list[StepReport] = []
    painted: list[int] = []
    config = DEMO_TRAINING.model_copy(update={"steps": 2, "max_seconds": None})
    held_out = demo_dataset(range(50, 52), painted.append)
    bundle, scores = train_demo_model(demo_dataset(range(4)), held_out, reports.append, config)
    assert painted == [1, 2]
    assert [report.step for report in reports] == [1, 2]
    assert bundle.labels == SCENE_LABELS
    assert bundle.scores == scores.model_dump(mode="json")
    assert scores.pixels == held_out[0].mask.size + held_out[1].mask.size


def test_no_scene_is_trained_on_and_measured_by():
    assert not set(TRAINING_SEEDS) & set(HELD_OUT_SEEDS)
    assert max(*TRAINING_SEEDS, *HELD_OUT_SEEDS) < FIRST_SEED - 1000
