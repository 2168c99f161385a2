"""The curves as TensorBoard reads them."""

import struct
from collections.abc import Iterator

from tensorboardX.proto.event_pb2 import Event

from fcn_core.metrics import ConfusionMatrix
from fcn_core.training.loop import History, LossPoint, ValidationPoint
from pipeline.training.records import Measured
from pipeline.training.tensorboard import event_file


def history(steps: int) -> History:
    matrix = ConfusionMatrix(2)
    matrix.counts[:] = [[3, 1], [0, 4]]
    return History(
        losses=[
            LossPoint(step=s, epoch=s / 4, loss=1 / s, learning_rate=0.5, grad_norm=s) for s in range(1, steps + 1)
        ],
        validations=[ValidationPoint(step=s, epoch=s / 4, scores=matrix.scores()) for s in range(4, steps + 1, 4)],
    )


def events(file: bytes) -> Iterator[Event]:
    """The records of an event file: length, its checksum, the event, its checksum."""
    place = 0
    while place < len(file):
        (length,) = struct.unpack_from("<Q", file, place)
        yield Event.FromString(file[place + 12 : place + 12 + length])
        place += 16 + length


def test_every_point_is_there_with_its_step_and_its_time() -> None:
    times = {str(step): 1000.0 + step for step in range(1, 9)}
    found = {
        (value.tag, event.step): (value.simple_value, event.wall_time)
        for event in events(event_file(history(8), times, ("road", "sky")))
        for value in event.summary.value
    }
    assert found["train/loss", 2] == (0.5, 1002.0)
    assert found["train/learning_rate", 8] == (0.5, 1008.0)
    assert found["train/grad_norm", 3] == (3.0, 1003.0)
    assert found["val_iou/road", 4] == (0.75, 1004.0)
    assert [round(found["val_iou/sky", step][0], 4) for step in (4, 8)] == [0.8, 0.8]
    assert found["val/pixel_accuracy", 4] == (0.875, 1004.0)
    assert len([key for key in found if key[0] == "train/loss"]) == 8
    assert len([key for key in found if key[0] == "val/mean_iou"]) == 2


def test_speed_and_memory_are_there_where_they_were_measured() -> None:
    measured = {"2": Measured(images_per_second=12.5, memory_bytes=3 << 30)}
    found = {
        (value.tag, event.step): value.simple_value
        for event in events(event_file(history(4), {}, (), measured))
        for value in event.summary.value
    }
    assert found["train/images_per_second", 2] == 12.5
    assert found["train/memory_gib", 2] == 3.0
    assert ("train/memory_gib", 1) not in found


def test_a_longer_history_only_adds_to_the_file() -> None:
    times = {str(step): 1000.0 + step for step in range(1, 13)}
    short, long = (list(events(event_file(history(steps), times)))[1:] for steps in (6, 12))
    assert long[: len(short)] == short
    assert len(event_file(history(6), times)) < len(event_file(history(12), times))


def test_a_run_without_a_step_has_no_points() -> None:
    assert not any(event.summary.value for event in events(event_file(History(), {})))
