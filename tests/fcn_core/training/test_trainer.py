import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fcn_core.bundle import ModelBundle
from fcn_core.data.augmentation import Augmentation
from fcn_core.data.datasets import Example, InMemory
from fcn_core.errors import DataError, DivergedError
from fcn_core.inference.evaluation import evaluate
from fcn_core.inference.predictor import Predictor
from fcn_core.models.building import build
from fcn_core.training import checkpoint
from fcn_core.training import trainer as trainer_module
from fcn_core.training.config import TrainConfig, recipe
from fcn_core.training.optimizer import learning_rate
from fcn_core.training.trainer import StepReport, Trainer
from tests.fcn_core.tiny_training import LABELS, SETTINGS, TINY, config, fresh_model, halves


def losses_of(trainer: Trainer) -> list[float]:
    reports: list[StepReport] = []
    trainer.fit(reports.append)
    return [report.loss for report in reports]


def test_training_learns_what_can_be_learnt():
    trainer = Trainer(fresh_model(), halves(), config(steps=60))
    losses = losses_of(trainer)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-3)  # zero score layers: all classes equal at first
    assert np.mean(losses[-5:]) < 0.2
    scores = evaluate(trainer.bundle(), halves(), SETTINGS)
    assert scores.mean_iou is not None
    assert scores.mean_iou > 0.8
    assert scores.pixels == 6 * 48 * 56


def test_sgd_learns_too():
    setting = config(steps=20, optimizer="sgd", learning_rate=0.05)
    losses = losses_of(Trainer(fresh_model(), halves(), setting))
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def test_bfloat16_trains_and_keeps_weights_in_float32():
    trainer = Trainer(fresh_model(), halves(), config(steps=10, precision="bfloat16"))
    losses = losses_of(trainer)
    assert losses[-1] < losses[0]
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("computes_in_it", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_precision_auto_is_bfloat16_where_the_hardware_has_it(monkeypatch, computes_in_it, precision):
    monkeypatch.setattr(trainer_module, "has_bfloat16", lambda device: computes_in_it)
    automatic, given = (Trainer(fresh_model(), halves(), config(steps=2, precision=p)) for p in ("auto", precision))
    assert losses_of(automatic) == losses_of(given)
    assert automatic.bundle().provenance["precision"] == precision
    assert automatic.bundle().provenance["train_config"]["precision"] == "auto"


def test_equal_seeds_train_equally_and_others_otherwise():
    runs = [losses_of(Trainer(fresh_model(), halves(), config(seed=seed))) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_run_that_goes_on_from_its_state_takes_the_same_steps():
    undisturbed = losses_of(Trainer(fresh_model(), halves(), config()))

    class StopError(Exception):
        pass

    first, seen = Trainer(fresh_model(), halves(), config()), []

    def stop_after_three(report: StepReport) -> None:
        seen.append(report.loss)
        if report.step == 3:
            raise StopError

    with pytest.raises(StopError):
        first.fit(stop_after_three)
    second = Trainer(fresh_model(), halves(), config())
    second.load_state_dict(first.state_dict())
    assert second.step == 3
    assert seen + losses_of(second) == undisturbed


def test_training_leaves_the_callers_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Trainer(fresh_model(), halves(), config(steps=2)).fit()
    assert torch.equal(torch.rand(3), expected)


def test_worker_processes_change_nothing_but_speed():
    assert losses_of(Trainer(fresh_model(), halves(), config(workers=2))) == losses_of(
        Trainer(fresh_model(), halves(), config())
    )


def test_every_example_occurs_once_a_pass():
    dataset, asked = halves(5), []

    class Watched:
        labels = LABELS

        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, index: int) -> Example:
            asked.append(index)
            return dataset[index]

    Trainer(fresh_model(), Watched(), config(steps=5, batch_size=2)).fit()
    assert sorted(asked[:5]) == sorted(asked[5:10]) == [0, 1, 2, 3, 4]
    assert asked[:5] != asked[5:10]


def test_a_batch_without_labels_has_zero_loss_and_spoils_nothing():
    image = np.zeros((48, 48, 3), np.uint8)
    unlabelled = InMemory([Example("blank", image, np.full((48, 48), 255, np.uint8))], LABELS)
    trainer = Trainer(fresh_model(), unlabelled, config(steps=2, weight_decay=0))
    assert losses_of(trainer) == [0.0, 0.0]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_a_loss_that_is_not_finite_stops_with_step_and_examples():
    trainer = Trainer(fresh_model(), halves(1), config())
    with torch.no_grad():
        trainer.model.score_fr.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"loss of step 1 is nan.*example-0, example-0"):
        trainer.fit()


def test_the_learning_rate_warms_up_and_then_falls_towards_zero():
    reports: list[StepReport] = []
    Trainer(fresh_model(), halves(), config(steps=10, warmup_steps=3)).fit(reports.append)
    rates = [report.learning_rate for report in reports]
    assert rates[0] == pytest.approx(2e-3 / 3)
    assert rates[2] == pytest.approx(2e-3 * 0.8**0.9)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(2e-3 * 0.1**0.9)
    assert [report.step for report in reports] == list(range(1, 11))
    assert reports[-1].progress == 1


def test_a_spent_time_budget_ends_the_run_and_its_schedule():
    trainer = Trainer(fresh_model(), halves(), config(steps=10_000, max_seconds=0.5, warmup_steps=0))
    reports: list[StepReport] = []
    bundle = trainer.fit(reports.append)
    assert 1 <= len(reports) < 10_000
    assert reports[-1].progress == 1
    assert learning_rate(trainer.config, trainer.step, trainer.progress) == 0
    assert bundle.provenance["steps"] == len(reports)


def test_a_factor_of_zero_freezes_the_backbone():
    model = fresh_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    Trainer(model, halves(), config(steps=3, backbone_lr_multiplier=0.0)).fit()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert not any(name.startswith("backbone.") for name in changed)


def test_a_bundle_says_how_it_was_made_and_survives_the_disk(tmp_path):
    trainer = Trainer(fresh_model(), halves(), config())
    bundle = trainer.fit()
    scores = evaluate(bundle, halves(), SETTINGS)
    noted = trainer.bundle(scores)
    noted.save(tmp_path / "model")
    loaded = ModelBundle.load(tmp_path / "model")
    assert loaded.model_id == bundle.model_id
    assert loaded.scores["mean_iou"] == scores.mean_iou
    assert loaded.provenance["train_config"]["seed"] == 0


def test_a_model_of_other_classes_is_refused():
    with pytest.raises(DataError, match="scores 3 classes"):
        Trainer(build(TINY.model_copy(update={"num_classes": 3})), halves(), config())


def test_an_empty_training_set_is_refused():
    with pytest.raises(DataError, match="empty"):
        Trainer(fresh_model(), InMemory([], LABELS), config())


def test_a_misspelt_option_is_refused():
    with pytest.raises(ValidationError, match="learning_rat"):
        TrainConfig(learning_rat=1)  # type: ignore[call-arg]


def test_parts_of_a_step_make_the_step_of_the_whole():
    still = TINY.model_copy(update={"dropout": 0.0})
    whole, parts = (
        losses_of(
            Trainer(fresh_model(still), halves(), config(steps=6, batch_size=5, gradient_accumulation_steps=count))
        )
        for count in (1, 3)
    )
    assert parts == pytest.approx(whole, rel=1e-5)


def test_a_step_has_at_most_as_many_parts_as_examples():
    many, one_each = (
        losses_of(Trainer(fresh_model(), halves(), config(steps=3, batch_size=2, gradient_accumulation_steps=count)))
        for count in (20, 2)
    )
    assert many == one_each


def test_with_image_mean_every_image_counts_the_same_however_much_of_it_is_labelled():
    """As Caffe's normalised loss does with one image a batch and iter_size 2."""
    first, second = (halves(2)[index] for index in range(2))
    mask = second.mask.copy()
    mask[4:] = 255
    sparse = Example(second.name, second.image, mask)
    whole = {"augmentation": Augmentation.none(), "steps": 1, "batch_size": 2, "warmup_steps": 0}
    still = TINY.model_copy(update={"dropout": 0.0})

    def trained(examples, **changes):
        trainer = Trainer(fresh_model(still), InMemory(examples, LABELS), config(**(whole | changes)))
        with torch.no_grad():
            trainer.model.score_fr.bias.copy_(torch.tensor([0.5, -0.5]))
        (loss,) = losses_of(trainer)
        return loss

    alone = [trained([example], batch_size=1) for example in (first, sparse)]
    assert alone[0] != pytest.approx(alone[1], rel=0.05), "else this shows nothing"
    for parts in (1, 2):
        together = trained([first, sparse], loss="image_mean", gradient_accumulation_steps=parts)
        assert together == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_an_image_without_a_labelled_pixel_adds_nothing_to_the_mean_of_images():
    example = halves(1)[0]
    void = Example("void", example.image, np.full_like(example.mask, 255))
    setting = config(
        loss="image_mean",
        augmentation=Augmentation.none(),
        steps=1,
        batch_size=2,
        gradient_accumulation_steps=2,
        warmup_steps=0,
    )
    assert losses_of(Trainer(fresh_model(), InMemory([example, void], LABELS), setting)) == pytest.approx(
        [np.log(2) / 2], rel=1e-3
    )


def test_frozen_upsampling_stays_what_it_was():
    setting = config(steps=3, freeze_upsampling=True)
    model = fresh_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Trainer(model, halves(), setting).fit()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert "score_fr.weight" in changed
    assert not changed & {"upscore2.weight", "upscore_pool4.weight"}


def test_channels_last_weights_take_the_textbook_step():
    """The fused optimisers walk memory: weights, gradients and moments must lie alike, also after a resume."""
    setting = config(steps=3, max_grad_norm=None, weight_decay=0.1, warmup_steps=0)
    trainer = Trainer(fresh_model(), halves(), setting)
    reference = fresh_model()
    textbook = torch.optim.AdamW(
        [
            {"params": [p for p in reference.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in reference.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        foreach=False,
        fused=False,
    )
    step = trainer.optimizer.step

    def both() -> None:
        for mine, theirs in zip(trainer.model.parameters(), reference.parameters(), strict=True):
            assert mine.grad is not None
            theirs.grad = mine.grad.detach().clone(memory_format=torch.contiguous_format)
        for group in textbook.param_groups:
            group["lr"] = trainer.optimizer.param_groups[0]["lr"]
        textbook.step()
        step()

    trainer.optimizer.step = both  # type: ignore[method-assign]
    reports = trainer.run()
    next(reports)
    trainer.load_state_dict(checkpoint.from_files(checkpoint.to_files(trainer.state_dict())))
    list(reports)
    for (name, mine), theirs in zip(trainer.model.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-7), name


def test_class_weights_shift_the_loss_towards_their_class():
    plain, weighted = (
        Trainer(fresh_model(), halves(), config(steps=30, class_weights=weights)) for weights in (None, (1.0, 20.0))
    )
    shares = []
    for trainer in (plain, weighted):
        predictor = Predictor(trainer.fit(), SETTINGS)
        shares.append(np.mean([predictor.predict([halves()[i].image])[0].mask.mean() for i in range(6)]))
    assert shares[1] > shares[0] + 0.02


def test_weights_of_one_change_nothing():
    assert losses_of(Trainer(fresh_model(), halves(), config(class_weights=(1.0, 1.0)))) == losses_of(
        Trainer(fresh_model(), halves(), config())
    )


def test_a_wrong_number_of_class_weights_is_refused():
    with pytest.raises(DataError, match="3 class_weights for 2 classes"):
        Trainer(fresh_model(), halves(), config(class_weights=(1.0, 1.0, 1.0)))


def test_the_papers_recipe_trains_on_whole_images():
    setting = recipe("paper", "fcn8s").model_copy(update={"steps": 40, "learning_rate": 1e-6})
    reports: list[StepReport] = []
    Trainer(fresh_model(), halves(), setting).fit(reports.append)
    assert reports[0].loss == pytest.approx(48 * 56 * np.log(2), rel=1e-3)  # summed over the pixels of one image
    assert {report.learning_rate for report in reports} == {1e-6}
    assert np.mean([report.loss for report in reports[-6:]]) < 0.8 * reports[0].loss


def test_reports_tell_epochs_and_names():
    reports: list[StepReport] = []
    Trainer(fresh_model(), halves(6), config(steps=None, epochs=1.5)).fit(reports.append)
    assert [report.epoch for report in reports] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3][: len(reports)])
    assert len(reports) == reports[0].steps == round(1.5 * 6 / 2)
    assert sorted(name for report in reports[:3] for name in report.names) == [f"example-{k}" for k in range(6)]


NORMED = TINY.model_copy(update={"backbone": "vgg16_bn"})


def test_a_frozen_backbone_keeps_its_batch_normalization_too():
    model = fresh_model(NORMED)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert any("running_mean" in name for name in before), "else this shows nothing"
    Trainer(model, halves(), config(steps=3, backbone_lr_multiplier=0.0)).fit()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed
    assert not any(name.startswith("backbone.") for name in changed)


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_ruins_the_weights():
    model = fresh_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.score_fr.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DivergedError, match=r"norm of the gradient of step 1 is (nan|inf).*example-"):
        Trainer(model, halves(), config(max_grad_norm=None)).fit()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_step_reports_the_norm_of_its_gradient():
    reports: list[StepReport] = []
    trainer = Trainer(fresh_model(), halves(), config(steps=1, max_grad_norm=1e-3))
    norms = []
    step = trainer.optimizer.step

    def measured() -> None:
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in trainer.model.parameters()]))
        step()

    trainer.optimizer.step = measured  # type: ignore[method-assign]
    trainer.fit(reports.append)
    assert reports[0].grad_norm > 1e-2
    assert float(norms[0]) == pytest.approx(1e-3, rel=1e-2), "what the optimizer gets is clipped"


def test_class_weights_that_teach_nothing_are_refused():
    with pytest.raises(ValidationError, match="class_weights are all 0"):
        TrainConfig(class_weights=(0.0, 0.0))
