"""The options of a segmentation job, defined once: for the command line, for config files, for the Prefect form."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fcn_core.inference.scales import Scales
from fcn_core.options import Options
from pipeline.jobs.affects import DRIVER, DRIVER_ONCE, MASKS, RUN, RUN_ONCE, SELECTION, SELECTION_ONCE
from pipeline.outputs.mask_formats import MaskFormatName
from pipeline.storage.uri import Uri

DAY = 24 * 3600
"""In seconds. Timers of the operating system count no further than a few weeks in one go."""


class SourceAndOutput(Options):
    """Where a job reads and writes."""

    source: Annotated[Uri, SELECTION] = Field(description="Where the images are: a folder, s3://, gs:// or az://.")
    output: Annotated[Uri, SELECTION] = Field(
        description="Where masks and tables go: a folder, s3://, gs:// or az://. Not inside the source."
    )


class ActorOptions(Options):
    """How images are read and predicted, and on what: for every job that runs a model in Ray actors."""

    device: Annotated[Literal["auto", "cpu", "cuda"], RUN] = Field(default="auto", description="Where the model runs.")
    precision: Annotated[Literal["auto", "float32", "bfloat16"], MASKS] = Field(
        default="auto", description="Numeric precision of the model. auto: bfloat16 where the hardware has it."
    )
    engine: Annotated[Literal["auto", "torch", "openvino", "onnxruntime"], MASKS] = Field(
        default="auto",
        description="Inference engine. auto: OpenVINO on a CPU where it is installed, else PyTorch, or ONNX Runtime "
        "for an imported graph.",
    )
    snap: Annotated[int, MASKS] = Field(
        default=1,
        ge=1,
        le=1024,
        description="Pad images to multiples of this many pixels, so that fewer shapes occur. Default: no padding.",
    )
    window: Annotated[int, MASKS] = Field(
        default=0,
        ge=0,
        le=8192,
        description="For imported ONNX graphs: run larger images in overlapping windows of this many pixels per side. "
        "Default: windows of 2048 for images over 4 megapixels.",
    )
    void_below: Annotated[float, MASKS] = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Leave pixels void (255 in the mask) whose largest softmax probability is lower. Default: every "
        "pixel gets a class.",
    )
    flip: Annotated[bool, MASKS] = Field(
        default=False,
        description="Test-time augmentation: average the scores of each image and of its mirror image. Takes twice the "
        "time.",
    )
    scales: Annotated[Scales, MASKS] = Field(
        default=(1.0,),
        description="Test-time augmentation: average the scores of each image in these sizes, as factors of its own. "
        "Default: 1.",
    )
    batch_size: Annotated[int | None, MASKS] = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Images of equal size per model call. Default: depends on the device.",
    )
    deterministic: Annotated[bool, MASKS] = Field(
        default=False, description="Make each mask independent of the other images in its batch."
    )
    max_pixels: Annotated[int, RUN] = Field(
        default=178_956_970,
        ge=1,
        le=1 << 40,
        description="Images with more pixels become error rows, without being decoded.",
    )
    image_timeout: Annotated[float, RUN] = Field(
        default=60.0, gt=0, le=DAY, description="Time limit for decoding one image, in seconds."
    )
    image_memory: Annotated[int, RUN] = Field(
        default=2 << 30, ge=1 << 26, le=1 << 50, description="Memory limit for decoding one image, in bytes."
    )

    actors: Annotated[int | None, RUN] = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Maximum number of Ray actors. Default: as many as fit the cluster.",
    )
    cpus_per_actor: Annotated[int | None, MASKS] = Field(
        default=None,
        ge=1,
        le=65_536,
        description="CPUs and model threads per actor. Default: those of a node, up to 8.",
    )
    gpus_per_actor: Annotated[float | None, RUN] = Field(
        default=None,
        ge=0,
        le=1024,
        description="GPUs per actor; fractions are allowed. Default: 1 where there are GPUs, else 0.",
    )
    codec_workers: Annotated[int | None, RUN] = Field(
        default=None, ge=1, le=1024, description="Image decoding processes per actor. Default: depends on the device."
    )
    shard_size: Annotated[int | None, RUN] = Field(
        default=None, ge=1, le=10_000_000, description="Images per shard. Default: by number of images and device."
    )
    placement_timeout: Annotated[float, RUN] = Field(
        default=600.0,
        gt=0,
        le=30 * DAY,
        description="Seconds to wait for the first actor; a GPU node takes minutes to boot.",
    )
    ray_address: Annotated[str | None, DRIVER] = Field(
        default=None,
        description="A Ray cluster to use; local: a new one of this process. Default: RAY_ADDRESS, else local, if the "
        "job needs a Ray.",
    )


class ModelOptions(Options):
    """Which model."""

    model: Annotated[Uri, MASKS] = Field(
        description="The model: the folder or URI of a bundle, or registry:NAME@champion, or registry:NAME@VERSION."
    )
    registry: Annotated[Uri | None, RUN] = Field(
        default=None, description="Folder or URI of the registry, for registry:NAME models. Default: FCN_REGISTRY."
    )


def _one_or_more(value: Any) -> Any:
    """`include: "*.jpg"` means one glob."""
    return (value,) if isinstance(value, str) else value


Globs = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]


class LabelOptions(Options):
    """Which images a segmentation job takes, and when it gives up."""

    include: Annotated[Globs, SELECTION] = Field(
        default=(),
        description="Only keys that match one of these globs; of tars and Parquet files, the images in them. Default: "
        "files named like images, and those in tars and Parquet files.",
    )
    exclude: Annotated[Globs, SELECTION] = Field(default=(), description="Skip keys that match one of these globs.")
    key_list: Annotated[Uri | None, SELECTION] = Field(
        default=None,
        description="A list of keys to work on, instead of listing SOURCE: Parquet, CSV, text, or an S3 Inventory's "
        "manifest.json.",
    )
    where: Annotated[str | None, SELECTION] = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="Of images that another model or other settings have segmented here, redo only those whose current "
        'row fits this SQL condition, such as "confidence < 0.6"; the others keep their masks. Images without a row '
        "are segmented as usual.",
    )
    image_column: Annotated[str | None, SELECTION] = Field(
        default=None,
        min_length=1,
        description="The column of images in Parquet files. Default: the one that is named like one, or is a struct of "
        "bytes and path.",
    )
    follow_links: Annotated[bool, SELECTION] = Field(
        default=False,
        description="Also read the targets of links that lead out of a local SOURCE. Default: they are skipped, with a "
        "warning.",
    )
    max_side: Annotated[int | None, MASKS] = Field(
        default=None,
        ge=32,
        le=1_000_000,
        description="Longest side of an image as the model sees it, in pixels: larger images are shrunk for the model, "
        "and masks keep the image's size. Faster and coarser. Default: no limit.",
    )
    limit: Annotated[int | None, SELECTION] = Field(
        default=None, ge=1, le=1_000_000_000_000, description="Maximum number of images in this run."
    )
    retry_errors: Annotated[bool, SELECTION] = Field(
        default=False, description="Also redo images that could not be read before."
    )
    repair: Annotated[bool, SELECTION_ONCE] = Field(
        default=False,
        description="Also redo images whose masks were lost, as `fcn verify` reports. Lists all masks.",
    )
    max_error_rate: Annotated[float, RUN] = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Finish with exit code 3 when more than this share of the images fails.",
    )
    abort_error_rate: Annotated[float, RUN] = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Stop early, with exit code 3, if more than this share has failed after 100 images or more. The "
        "same command resumes. Default: never.",
    )
    masks: Annotated[MaskFormatName, RUN] = Field(
        default="objects",
        description="How masks are written: one object per image, or one tar per shard, at half the requests.",
    )
    features: Annotated[bool, RUN] = Field(
        default=False,
        description="Also write what each image looks like to the model, 256 bytes an image, for `fcn rank --diverse`. "
        "A second, small pass; masks are the same. Only images that are segmented get features.",
    )
    allow_empty: Annotated[bool, RUN] = Field(
        default=False,
        description="Succeed even if SOURCE is empty or none of its objects is selected: for schedules that run before "
        "there are images.",
    )
    fresh: Annotated[bool, RUN_ONCE] = Field(
        default=False, description="Plan a new run instead of resuming an unfinished run of this job."
    )
    takeover: Annotated[bool, DRIVER_ONCE] = Field(
        default=False, description="Take this output over from another driver."
    )
    no_report: Annotated[bool, RUN_ONCE] = Field(
        default=False, description="Do not write an HTML report at the end of the run."
    )
    log_images: Annotated[bool, RUN_ONCE] = Field(
        default=False, description="Log a line per image when its shard is committed: key, status, mask, error."
    )


class SegmentOptions(ActorOptions, LabelOptions, ModelOptions):
    """All options of a segmentation job except its source and output, which the command line takes by position."""


class SegmentJob(SegmentOptions, SourceAndOutput):
    """Segment every image under `source` with `model`, and write masks and tables under `output`."""
