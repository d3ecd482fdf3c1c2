"""``maskbatch export detector …``. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import enum
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from maskbatch.config import MIN_SCORE
from maskbatch.errors import MissingExtraError, UsageError
from maskbatch_export.moved import add_moved

app = typer.Typer(
    no_args_is_help=True,
    help="Make the face detector: train, evaluate, compare, convert, quantize, average, stats, speed.",
)

MOVED = {"export": "convert", "quantise": "quantize", "half": "quantize --variant fp16", "blend": "average"}
"""Commands of the first edition → what they are called now."""


add_moved(app, "maskbatch export detector", MOVED)


class Variant(enum.StrEnum):
    """A faster variant of a converted model."""

    INT8 = "int8"
    FP16 = "fp16"


class Method(enum.StrEnum):
    """How the range of an activation follows from what was seen in calibration."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


class Part(enum.StrEnum):
    """A part of the split by group."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Folder with the three data sets: face_mask_detection, ilc2021, wider_face.",
        exists=True,
        file_okay=False,
    ),
]
StartOption = Annotated[
    Path, typer.Option("--start", help="Initial weights, retinaface_mobilenet025.npz.", exists=True, dir_okay=False)
]
OutOption = Annotated[Path, typer.Option("--out", help="File to write.")]


def _torch_backend(threads: int) -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("this command needs the package torch: uv pip install torch") from error
    import keras

    torch.set_num_threads(threads)
    keras.config.set_image_data_format("channels_first")


@app.command()
def train(
    run: Annotated[Path, typer.Option(help="Folder of this run; an unfinished run in it is continued.")],
    data: DataOption,
    start: StartOption,
    minutes: Annotated[float, typer.Option(help="Training time.")] = 90.0,
    rate: Annotated[float, typer.Option(help="Peak of the learning rate.")] = 1e-3,
    batch: Annotated[int, typer.Option(help="Crops per step.")] = 16,
    size: Annotated[int, typer.Option(help="Side of a training crop.")] = 448,
    stem: Annotated[int, typer.Option(help="Channels of the first convolution.")] = 16,
    refine: Annotated[
        str, typer.Option(help="Backbone blocks followed by a residual 3x3 convolution, separated by commas.")
    ] = "1_3,1_5,2_6",
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads of PyTorch.")] = 1,
    validate_minutes: Annotated[float, typer.Option(help="Minutes between two validations.")] = 15.0,
    begin_at: Annotated[
        Path | None, typer.Option(help="Averaged weights to continue from (average.npz of another run).")
    ] = None,
    plain_share: Annotated[float, typer.Option(help="Last share of the time without mosaics and degradation.")] = 0.12,
    mosaic: Annotated[float, typer.Option(help="Share of crops made of four windows.")] = 0.2,
    wider_share: Annotated[float, typer.Option(help="Share of the crops from WIDER FACE.")] = 0.34,
    ignore_by: Annotated[
        str | None,
        typer.Option(help="Detector (yunet=FILE, …) whose detections without a label are not trained as background."),
    ] = None,
    distil: Annotated[float, typer.Option(help="Weight of the initial model's scores on WIDER FACE; 0 = off.")] = 0.0,
    with_validation: Annotated[
        bool, typer.Option("--with-validation", help="Train on the validation part of the mask sets too.")
    ] = False,
    shares: Annotated[
        str | None,
        typer.Option(help="Shares of the data sets, as in wider_face=0.3,street_masks=0.2; in place of --wider-share."),
    ] = None,
    close: Annotated[float, typer.Option(help="Share of crops that one face fills.")] = 0.0,
    large_every: Annotated[
        int, typer.Option(help="Each Nth step has half as many crops of 640 pixels; 0 = never.")
    ] = 0,
    keep: Annotated[
        float, typer.Option(help="Pull towards the weights that training began with, in place of weight decay.")
    ] = 0.0,
    consensus: Annotated[
        list[str] | None,
        typer.Option(help="Detector (FILE, yunet=FILE) whose agreement with others completes the labels; repeatable."),
    ] = None,
) -> None:
    """Fine-tune the initial model (PyTorch backend)."""
    _torch_backend(threads)
    import onnx

    from maskbatch_export.detector.augment import SceneRecipe
    from maskbatch_export.detector.convert import to_onnx
    from maskbatch_export.detector.model import Architecture, build_model
    from maskbatch_export.detector.train import TrainSettings
    from maskbatch_export.detector.train import train as run_training
    from maskbatch_export.detector.weights import load_starting_weights

    run.mkdir(parents=True, exist_ok=True)
    teacher = run / "teacher.onnx"
    if not teacher.exists():
        model = build_model()
        load_starting_weights(model, start)
        onnx.save(to_onnx(model), teacher)
    settings = TrainSettings(
        minutes=minutes,
        rate=rate,
        batch=batch,
        seed=seed,
        plain_share=plain_share,
        architecture=Architecture(stem=stem, refine=tuple(filter(None, refine.split(",")))),
        recipe=SceneRecipe(size=size, mosaic=mosaic, close=close),
        shares=_shares(shares)
        if shares
        else {
            "face_mask_detection": 0.28 / 0.66 * (1 - wider_share),
            "ilc2021": 0.38 / 0.66 * (1 - wider_share),
            "wider_face": wider_share,
        },
        large_every=large_every,
        keep=keep,
        frozen_norms=begin_at is not None and begin_at.suffix == ".onnx",
        consensus=tuple(consensus or ()),
        ignore_by=ignore_by,
        distil=distil,
        with_validation=with_validation,
    )
    run_training(settings, run, data, start, teacher, validate_minutes, begin_at)


def _shares(text: str) -> dict[str, float]:
    from maskbatch_export.detector.data import ORIGINS

    try:
        shares = {name: float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UsageError(f"--shares {text}: write NAME=SHARE,NAME=SHARE") from None
    if unknown := sorted(shares.keys() - set(ORIGINS)):
        raise UsageError(f"--shares: there is no data set {unknown[0]}; there are {', '.join(ORIGINS)}")
    return shares


@app.command()
def average(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN:BACKBONE:REST...", help="A run's folder, its share in the backbone and in all else."
        ),
    ],
    start: StartOption,
    out: Annotated[Path, typer.Option(help="Folder for the mean; `train --begin-at` and `convert` read it.")],
) -> None:
    """Average the weights of runs with the initial weights, which get the share that is left."""
    _torch_backend(1)
    from maskbatch.storage.atomic import write_bytes
    from maskbatch_export.detector.model import Architecture, build_model
    from maskbatch_export.detector.train import average_weights
    from maskbatch_export.saving import save_arrays

    parts = []
    for text in runs:
        folder, _, shares = text.partition(":") if text.count(":") == 2 else (text, "", "")
        try:
            backbone, rest = map(float, shares.split(":"))
        except ValueError:
            raise UsageError(f"{text}: write RUN:BACKBONE:REST, as in out/run1:0.5:0.8") from None
        parts.append((Path(folder) / "average.npz", backbone, rest))
    settings = (parts[0][0].parent / "settings.json").read_text()
    model = build_model(Architecture.from_dict(json.loads(settings)["architecture"]))
    values: dict[str, Any] = average_weights(model, start, parts)
    write_bytes(out / "settings.json", settings.encode())
    save_arrays(out / "average.npz", **values)
    typer.echo(f"{out}: the mean of {len(parts)} runs")


def _metadata(architecture: object, threshold: float, nms_iou: float, version: str) -> dict[str, object]:
    return {
        "name": "retinaface",
        "version": version,
        "licence": "Apache-2.0; started from MIT-licensed RetinaFace-MobileNet0.25 (Face-Detector-1MB-with-landmark)",
        "training_data": "Face Mask Detection (CC0), face-mask-dataset-ilc-2021, WIDER FACE training part",
        "input": "uint8 N,H,W,3 BGR 0..255; H and W multiples of 32; letterbox at the top left, black",
        "sizes": [[640, 640], [384, 640], [480, 640], [640, 384], [640, 480]],
        "score_threshold": threshold,
        "nms_iou": nms_iou,
        "vote_iou": 0.5,
        "architecture": architecture,
    }


@app.command()
def convert(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of `average`.", exists=True, file_okay=False)],
    out: OutOption,
    threshold: Annotated[float, typer.Option(help="Score threshold for scanning, written into the metadata.")] = 0.35,
    nms_iou: Annotated[float, typer.Option(help="IoU of suppression, written into the metadata.")] = 0.5,
    version: Annotated[str, typer.Option(help="Version to write into the file.")] = "1",
) -> None:
    """Write the averaged weights of a run as float32 ONNX, and compare the file with Keras."""
    _torch_backend(1)
    from maskbatch.storage.atomic import write_bytes
    from maskbatch_export.detector.convert import check_parity, to_onnx
    from maskbatch_export.detector.model import Architecture, build_model
    from maskbatch_export.detector.train import load_average

    architecture = Architecture.from_dict(json.loads((run / "settings.json").read_text())["architecture"])
    model = build_model(architecture)
    load_average(model, run / "average.npz")
    proto = to_onnx(model, _metadata(architecture.to_dict(), threshold, nms_iou, version))
    write_bytes(out, proto.SerializeToString())
    typer.echo(f"{out}: largest difference to Keras {check_parity(model, out):.2e}")


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="float32 ONNX detector from `convert`.", exists=True, dir_okay=False)],
    out: OutOption,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the data sets; their training part calibrates INT8, the validation part of the mask sets judges it."
        ),
    ] = None,
    variant: Annotated[Variant, typer.Option(help="int8 for CPUs, fp16 for GPUs.")] = Variant.INT8,
    calibration: Annotated[int, typer.Option(min=1, help="How many training images set the ranges of INT8.")] = 120,
    method: Annotated[Method, typer.Option(help="How ranges follow from them.")] = Method.MINMAX,
) -> None:
    """Make a faster variant; inputs and outputs stay as they are. INT8 that loses more than .3 points of AP is refused."""
    from maskbatch_export.detector.data import MASK_SETS, read_pictures
    from maskbatch_export.detector.quantize import choose_pictures, make_int8, to_fp16

    if variant is Variant.FP16:
        to_fp16(model, out)
        typer.echo(f"{out} written")
        return
    if data is None:
        raise UsageError("--variant int8 needs --data FOLDER to calibrate on")
    pictures = choose_pictures(read_pictures(data, "train"), calibration)
    before, after = make_int8(model, out, pictures, read_pictures(data, "val", MASK_SETS), method.value)
    typer.echo(f"{out}: AP.5 {after:.4f} on the validation part (float32 {before:.4f})")


@app.command()
def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="An ONNX file of ours, yunet=FILE or scrfd=FILE.")
    ],
    data: DataOption,
    part: Annotated[
        Part, typer.Option(help="Part of the split (WIDER has no test part here: its val part is taken).")
    ] = Part.TEST,
    size: Annotated[int, typer.Option(help="Long side of the detector's input.")] = 640,
    nms_iou: Annotated[float, typer.Option(help="IoU of suppression.")] = 0.5,
    score: Annotated[float, typer.Option(help="Precision and recall are given at this score.")] = MIN_SCORE,
    ignore_by: Annotated[
        str | None,
        typer.Option(
            help="As MODEL: what this detector detects at .5 in the mask sets and no label explains counts neither way."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
) -> None:
    """Average precision and recall by face size, letterboxed, of one or more detectors on the same images."""
    from maskbatch.storage.atomic import write_bytes
    from maskbatch_export.detector.data import LOOSE_SETS, MASK_SETS, ROOMS, WIDER, present, read_pictures
    from maskbatch_export.detector.evaluate import evaluate as run_evaluation
    from maskbatch_export.detector.hard_cases import false_alarms, one_box_each
    from maskbatch_export.detector.rivals import open_detector
    from maskbatch_export.detector.unlabelled import ignore_unlabelled

    detectors = {spec: open_detector(spec, size, nms_iou) for spec in models}
    others = [open_detector(ignore_by, size)] if ignore_by is not None else []
    report: dict[str, dict[str, object]] = {}
    for origin in present(data):
        if origin == ROOMS:
            continue
        chosen = "val" if origin == WIDER and part is Part.TEST else part.value
        pictures = read_pictures(data, chosen, (origin,))  # type: ignore[arg-type]
        if others:
            pictures, ignored = ignore_unlabelled(pictures, others, (*MASK_SETS, *LOOSE_SETS))
            typer.echo(f"{origin}/{chosen}: {ignored} faces without a label ignored")
        for spec, detect in detectors.items():
            figures = run_evaluation(detect, pictures, size, score)
            report.setdefault(spec, {})[f"{origin}/{chosen}"] = figures
            recall = " ".join(f"{k}:{v:.3f}" for k, v in figures["recall"].items() if not k.startswith("n_"))
            typer.echo(
                f"{origin}/{chosen} {spec}: AP.5 {figures['ap50']:.4f} AP.35 {figures['ap35']:.4f} AP {figures['ap']:.4f} "
                f"| at {score:g} precision {figures['precision']:.3f} recall {figures['recall_at_score']:.3f} "
                f"| recall at 1 false/image (score {figures['score_at_1_false_per_picture']:.3f}) {recall}"
            )
    rooms = read_pictures(data, part.value, (ROOMS,)) if ROOMS in present(data) else []
    faces = read_pictures(data, part.value, tuple(origin for origin in MASK_SETS if origin in present(data)))
    for spec, detect in detectors.items():
        images, alarms = false_alarms(detect, rooms, score)
        close = one_box_each(detect, faces, score)
        report.setdefault(spec, {})["hard cases"] = {
            "rooms": len(rooms),
            "rooms_with_a_face": images,
            "false": alarms,
            **close,
        }
        typer.echo(
            f"{spec} at {score:g}: {images} of {len(rooms)} rooms without people with {alarms} detections | of {close['close_ups']} "
            f"close-ups {close['one']:.1%} one box, {close['none']:.1%} none, {close['several']:.1%} several"
        )
    if out is not None:
        write_bytes(out, json.dumps(report, indent=1).encode())


@app.command()
def compare(
    data: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Annotated images, as for `maskbatch evaluate`.")
    ],
    detector: Annotated[
        list[str] | None, typer.Option(help="Detector as for a scan; repeatable. [default: yunet, retinaface]")
    ] = None,
    part: Annotated[Part, typer.Option(help="Part of the split by near-duplicate group.")] = Part.TEST,
    size: Annotated[int, typer.Option(help="Long side at which all detectors look.")] = 640,
    limit: Annotated[int | None, typer.Option(help="At most this many images of each folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
) -> None:
    """Compare MTCNN with OpenCV's YuNet and ours: average precision, paired bootstrap, McNemar's test, time."""
    from maskbatch.evaluate.report import markdown
    from maskbatch.storage.atomic import write_bytes
    from maskbatch_export.detector.mtcnn import compare as run_comparison

    report = {}
    for folder in data:
        found = run_comparison(folder, detector or ("yunet", "retinaface"), part.value, size, limit)
        report[folder.resolve().name] = found.as_dict()
        typer.echo(f"## {folder.resolve().name}, part {part.value}\n\n{markdown(found)}")
    if out is not None:
        write_bytes(out, json.dumps(report, indent=1).encode())


@app.command()
def stats(
    data: DataOption, out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None
) -> None:
    """Describe the data sets: images, faces, ignored faces and face sizes, by part."""
    from maskbatch.storage.atomic import write_bytes
    from maskbatch_export.detector.data import MASK_SETS, WIDER
    from maskbatch_export.detector.stats import part_figures

    figures = {}
    for origin in (*MASK_SETS, WIDER):
        for part in Part:
            found = part_figures(data, part.value, origin)
            if found is not None:
                figures[f"{origin}/{part.value}"] = found
                sizes = ", ".join(f"{name} px: {count}" for name, count in found["sizes"].items() if count)
                typer.echo(
                    f"{origin}/{part.value}: {found['images']} images, {found['faces']} faces "
                    f"(+ {found['ignored']} ignored); longer side {sizes}"
                )
    if not figures:
        raise UsageError(f"{data} holds none of {', '.join((*MASK_SETS, WIDER))}")
    if out is not None:
        write_bytes(out, json.dumps(figures, indent=1).encode())


@app.command()
def speed(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="ONNX files; run in turn, so that all meet the same machine."),
    ],
    size: Annotated[int, typer.Option(help="Side of the input.")] = 640,
    rounds: Annotated[int, typer.Option(help="Number of rounds.")] = 40,
) -> None:
    """Milliseconds per image on one CPU thread, the files interleaved; the first file is the reference."""
    from maskbatch_export.detector.speed import compare

    for row in compare(models, size, rounds):
        typer.echo(f"{row.name}: median {row.median:.2f} ms, least {row.least:.2f} ms, {row.ratio:.3f} x the first")
