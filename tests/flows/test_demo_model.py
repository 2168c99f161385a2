from fcn_core.trainer import StepReport
from flows.demo_model import DEMO_TRAINING, HELD_OUT_SEEDS, TRAINING_SEEDS, demo_dataset, train_demo_model
from flows.scenes import SCENE_LABELS


def test_training_reports_progress_and_gives_a_scored_bundle():
    reports: list[StepReport] = []
    config = DEMO_TRAINING.model_copy(update={"steps": 2, "max_seconds": None})
    bundle, scores = train_demo_model(reports.append, config=config, training=range(4), held_out=range(50, 52))
    assert [report.step for report in reports] == [1, 2]
    assert bundle.labels == SCENE_LABELS
    assert bundle.scores == scores.model_dump(mode="json")
    assert scores.pixels == sum(example.mask.size for example in map(demo_dataset(range(50, 52)).__getitem__, (0, 1)))


def test_no_scene_is_both_trained_on_and_held_out():
    assert not set(TRAINING_SEEDS) & set(HELD_OUT_SEEDS)
