import io
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from fcn_core.data import datasets
from fcn_core.data.datasets import Example, InMemory, Pair, Pairs, folder, split_names, voc_pairs
from fcn_core.decoding import decode
from fcn_core.errors import DataError
from fcn_core.labels import LabelSet, encode_mask

LABELS = LabelSet(name="pair", names=("left", "right"), palette=((255, 0, 0), (0, 0, 255)))


def picture(height: int = 6, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    mask[0] = 255
    return np.where(mask[..., None] == 1, 200, 40).astype(np.uint8).repeat(3, axis=2), mask


def jpeg(image: np.ndarray, exif: Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, exif=exif or Image.Exif())
    return buffer.getvalue()


@pytest.fixture
def files() -> dict[str, bytes]:
    image, mask = picture()
    return {
        "JPEGImages/a.jpg": jpeg(image),
        "SegmentationClass/a.png": encode_mask(mask, LABELS),
        "ImageSets/Segmentation/train.txt": b"a\n",
    }


def test_an_example_is_its_image_and_its_mask(files):
    dataset = Pairs(files.__getitem__, voc_pairs(split_names(files.__getitem__, "train")), LABELS)
    image, mask = picture()
    assert len(dataset) == 1
    assert dataset[0].name == "a"
    assert (dataset[0].mask == mask).all()
    assert np.abs(dataset[0].image.astype(int) - image).mean() < 12


def test_training_sees_16_bit_and_transparent_pictures_as_segmenting_does(files):
    """0.1 had a reader of its own for training: 16-bit grey was white there, transparency was not seen."""
    image, _ = picture()
    grey = image[:, :, 0]
    alpha = np.where(grey > 100, 255, 0).astype(np.uint8)
    for name, stored, expected in (
        ("grey8.png", grey, image),
        ("grey16.png", grey.astype(np.uint16) * 257, image),
        ("alpha.png", np.dstack([image, alpha]), np.where(alpha[:, :, None] > 0, image, 255)),
        ("grey16.tif", grey.astype(np.uint16) * 257, image),
    ):
        buffer = io.BytesIO()
        Image.fromarray(stored).save(buffer, "TIFF" if name.endswith("tif") else "PNG")
        files[name] = buffer.getvalue()
        example = Pairs(files.__getitem__, [Pair("a", name, "SegmentationClass/a.png")], LABELS)[0]
        np.testing.assert_array_equal(example.image, expected)
        np.testing.assert_array_equal(example.image, decode(files[name]).pixels)
        assert example.image.flags.writeable


def test_an_exif_entry_of_an_odd_type_does_not_end_a_training(files):
    """Pillow's own turning of an image writes its EXIF anew, and fails on entries that it can only read."""
    entries = struct.pack("<HHHLLHHLLL", 2, 0x010E, 5, 1, 38, 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + entries + struct.pack("<LL", 1, 3)
    buffer = io.BytesIO()
    Image.fromarray(picture()[0]).save(buffer, "JPEG", exif=exif)
    files["JPEGImages/a.jpg"] = buffer.getvalue()
    files["SegmentationClass/a.png"] = encode_mask(np.zeros((8, 6), np.uint8), LABELS)
    assert Pairs(files.__getitem__, voc_pairs(["a"]), LABELS)[0].image.shape == (8, 6, 3)


def test_a_folder_reads_as_a_dict_does(files, tmp_path):
    for key, data in files.items():
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    from_folder = Pairs(folder(tmp_path), voc_pairs(split_names(folder(tmp_path), "train")), LABELS)
    assert (from_folder[0].image == Pairs(files.__getitem__, voc_pairs(["a"]), LABELS)[0].image).all()


def test_nothing_is_read_before_it_is_asked_for(files):
    asked = []

    def read(key: str) -> bytes:
        asked.append(key)
        return files[key]

    dataset = Pairs(read, voc_pairs(["a", "missing"]), LABELS)
    assert asked == []
    dataset[0]
    assert sorted(asked) == ["JPEGImages/a.jpg", "SegmentationClass/a.png"]


def test_a_mask_alone_is_read_without_its_image(files):
    del files["JPEGImages/a.jpg"]
    assert (Pairs(files.__getitem__, voc_pairs(["a"]), LABELS).mask(0) == picture()[1]).all()


def test_pairs_may_be_anywhere_and_of_any_coding(files):
    image, mask = picture()
    mask[0] = 1  # the label set's own ignore colour is not among its classes' colours
    colors = io.BytesIO()
    Image.fromarray(np.array(LABELS.palette, np.uint8)[mask]).save(colors, "PNG")
    files |= {"x/photo.png": jpeg(image), "y/colours.png": colors.getvalue()}
    dataset = Pairs(files.__getitem__, [Pair("one", "x/photo.png", "y/colours.png")], LABELS)
    assert (dataset[0].mask == mask).all()
    assert dataset[0].name == "one"
    with pytest.raises(DataError, match=r"y/colours.png: .*where class indices are expected"):
        Pairs(files.__getitem__, dataset.pairs, LABELS, "index")[0]
    swapped = Pairs(files.__getitem__, dataset.pairs, LABELS, recode={0: 1, 1: 0})
    assert (swapped[0].mask == 1 - mask).all()


def test_a_data_set_travels_by_pickle(files, tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "SegmentationClass").mkdir()
    for key in ("JPEGImages/a.jpg", "SegmentationClass/a.png"):
        (tmp_path / key).write_bytes(files[key])
    dataset = Pairs(folder(tmp_path), voc_pairs(["a"]), LABELS, "index", {7: 0})
    arrived = pickle.loads(pickle.dumps(dataset))
    assert (arrived.pairs, arrived.labels, arrived.coding, arrived.recode) == (dataset.pairs, LABELS, "index", {7: 0})
    assert (arrived[0].mask == dataset[0].mask).all()


def test_names_in_a_split_may_hold_spaces():
    listing = b"\xef\xbb\xbfa photo\r\n\n other/b \n"
    assert split_names({"ImageSets/Segmentation/train.txt": listing}.__getitem__, "train") == ["a photo", "other/b"]


def test_a_turned_photo_is_trained_on_as_it_is_displayed(files):
    image, mask = picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    files["JPEGImages/a.jpg"] = jpeg(np.ascontiguousarray(np.rot90(image)), exif)
    example = Pairs(files.__getitem__, voc_pairs(["a"]), LABELS)[0]
    assert example.image.shape[:2] == mask.shape
    assert np.abs(example.image.astype(int) - image).mean() < 12


@pytest.mark.parametrize("key", ["JPEGImages/a.jpg", "SegmentationClass/a.png"])
def test_a_missing_file_is_named(files, key):
    del files[key]
    with pytest.raises(DataError, match=key):
        Pairs(files.__getitem__, voc_pairs(["a"]), LABELS)[0]


@pytest.mark.parametrize("key", ["JPEGImages/a.jpg", "SegmentationClass/a.png"])
@pytest.mark.parametrize("cut", [0, 20, 100])
def test_a_damaged_file_is_named(files, key, cut):
    files[key] = files[key][:cut]
    with pytest.raises(DataError, match=key):
        Pairs(files.__getitem__, voc_pairs(["a"]), LABELS)[0]


def test_a_class_that_the_label_set_lacks_is_named(files):
    more = LabelSet(name="more", names=("a", "b", "c"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    files["SegmentationClass/a.png"] = encode_mask(np.full((6, 8), 2, np.uint8), more)
    with pytest.raises(DataError, match=r"a: its mask holds \[2\].*classes 0..1 and ignores 255"):
        Pairs(files.__getitem__, voc_pairs(["a"]), LABELS)[0]


def test_a_mask_of_another_size_is_refused(files):
    files["SegmentationClass/a.png"] = encode_mask(np.zeros((6, 9), np.uint8), LABELS)
    with pytest.raises(DataError, match="one height and width"):
        Pairs(files.__getitem__, voc_pairs(["a"]), LABELS)[0]


@pytest.mark.parametrize(
    ("listing", "message"),
    [(b"", "names no image"), (b"a\nb\na\n", "'a' more than once"), (b"\xff", "cannot be read")],
)
def test_a_useless_split_is_refused(listing, message):
    with pytest.raises(DataError, match=message):
        split_names({"ImageSets/Segmentation/train.txt": listing}.__getitem__, "train")


def test_a_missing_split_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"ImageSets/Segmentation/val.txt cannot be read"):
        split_names(folder(tmp_path), "val")


def test_examples_in_memory_are_checked_when_they_are_handed_over():
    image, mask = picture()
    assert len(InMemory([Example("a", image, mask)], LABELS)) == 1
    with pytest.raises(DataError, match="a: its mask holds"):
        InMemory([Example("a", image, mask + 2)], LABELS)


@pytest.mark.parametrize(("reader", "file"), [("decode_displayed", "JPEGImages/a.jpg"), ("read_mask", "a.png")])
def test_whatever_a_decoder_raises_names_its_file(monkeypatch: pytest.MonkeyPatch, reader: str, file: str) -> None:
    def odd(*arguments: object) -> None:
        raise AttributeError("'IFDRational' object has no attribute 'decode'")

    monkeypatch.setattr(datasets, reader, odd)
    pairs = Pairs(lambda key: b"", [Pair("a", file, file)], LABELS)
    read = pairs.mask if reader == "read_mask" else pairs.__getitem__
    with pytest.raises(DataError, match=rf"{file} cannot be read \(AttributeError: 'IFDRational'"):
        read(0)
