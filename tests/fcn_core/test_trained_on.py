"""What a model says of the images it has seen."""

from dataclasses import replace

import numpy as np
import pytest

from fcn_core import trained_on
from fcn_core.bundle import ModelBundle
from fcn_core.errors import BundleError
from fcn_core.models.description import MODEL_FILE, TRAINED_ON_FILE
from fcn_core.trained_on import TrainedOn, pixel_digest
from tests.samples import model, photo


def digests(*seeds: int) -> list[bytes]:
    return [pixel_digest(photo(40, 30, seed)) for seed in seeds]


def test_a_digest_is_of_the_pixels_and_of_their_shape() -> None:
    image = photo(40, 30)
    assert pixel_digest(np.asfortranarray(image)) == pixel_digest(image)
    assert pixel_digest(image.reshape(40, 30, 3)) != pixel_digest(image)
    changed = image.copy()
    changed[3, 4, 1] ^= 1
    assert pixel_digest(changed) != pixel_digest(image)


def test_a_bundle_brings_the_images_along_and_is_the_same_model(tmp_path) -> None:
    plain = model()
    noted = replace(plain, trained_on=TrainedOn.of(digests(1, 2, 2, 3)))
    assert noted.model_id == plain.model_id
    noted.save(tmp_path / "model")
    loaded = ModelBundle.load(tmp_path / "model").trained_on
    assert loaded is not None
    assert (loaded.images, loaded.complete) == (3, True)
    assert loaded.count(digests(2, 3, 4)) == 2
    assert "trained_on" not in (plain.to_files()[MODEL_FILE]).decode()


def test_a_bundle_is_whole_without_the_note_but_not_with_a_damaged_one(tmp_path) -> None:
    files = replace(model(), trained_on=TrainedOn.of(digests(1, 2))).to_files()
    without = {name: content for name, content in files.items() if name != TRAINED_ON_FILE}
    assert ModelBundle.from_files(without).trained_on is None
    with pytest.raises(BundleError, match=TRAINED_ON_FILE):
        ModelBundle.from_files(files | {TRAINED_ON_FILE: files[TRAINED_ON_FILE][:-1]})


def test_of_too_many_images_a_sample_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_on, "MOST_DIGESTS", 2)
    many = TrainedOn.of(digests(*range(5)))
    assert (many.images, len(many.digests), many.complete) == (5, 16, False)
    assert many.count(digests(*range(5))) == 2


def test_a_model_has_seen_what_the_one_it_was_started_from_has() -> None:
    both = TrainedOn.of(digests(1, 2)) | TrainedOn.of(digests(2, 3))
    assert both == TrainedOn.of(digests(1, 2, 3))
