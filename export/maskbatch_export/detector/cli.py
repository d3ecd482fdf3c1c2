"""Commands of the detector's workshop: ``python -m maskbatch_export.detector COMMAND``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from maskbatch.config import MIN_SCORE
from maskbatch.errors import MissingExtraError

app = typer.Typer(no_args_is_help=True, help="Make the face detector: train, evaluate, export, quantise.")


@app.callback()
def main() -> None:
    """Keep ``train`` a sub-command while it is alone."""


def _torch_backend(threads: int) -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("training the detector needs PyTorch: uv pip install torch") from error
    import keras

    torch.set_num_threads(threads)
    keras.config.set_image_data_format("channels_first")


DataOption = Annotated[Path, typer.Option(help="Folder with the three data sets.", exists=True, file_okay=False)]
StartOption = Annotated[Path, typer.Option(help="The starting weights, retinaface_mobilenet025.npz.", exists=True)]


@app.command()
def train(
    run: Annotated[Path, typer.Option(help="Folder of this run; goes on from its checkpoint if it holds one.")],
    data: DataOption,
    start: StartOption,
    minutes: Annotated[float, typer.Option(help="Training time.")] = 90.0,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    batch: int = 16,
    size: Annotated[int, typer.Option(help="Side of a training crop.")] = 448,
    stem: int = 16,
    refine: Annotated[
        str, typer.Option(help="Backbone blocks with a residual 3x3 behind them, by comma.")
    ] = "1_3,1_5,2_6",
    seed: int = 0,
    threads: int = 1,
    validate_minutes: float = 15.0,
    begin_at: Annotated[Path | None, typer.Option(help="Weights to begin at (average.npz of another run).")] = None,
    plain_share: Annotated[float, typer.Option(help="Last share of the time without mosaics and damage.")] = 0.12,
    mosaic: Annotated[float, typer.Option(help="Share of crops made of four windows.")] = 0.2,
    wider_share: Annotated[float, typer.Option(help="Share of the crops from WIDER FACE.")] = 0.34,
    ignore_by: Annotated[
        str | None,
        typer.Option(help="Detector (yunet=FILE, …) whose finds without a label are not learned as background."),
    ] = None,
    distil: Annotated[float, typer.Option(help="Weight of the starting model's scores on WIDER FACE; 0 is off.")] = 0.0,
    with_validation: Annotated[bool, typer.Option(help="Learn from the validation part of the mask sets too.")] = False,
) -> None:
    """Fine-tune the starting model (PyTorch backend)."""
    _torch_backend(threads)
    import onnx

    from maskbatch_export.detector.augment import Recipe
    from maskbatch_export.detector.model import Architecture, build_model
    from maskbatch_export.detector.onnx_export import to_onnx
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
        recipe=Recipe(size=size, mosaic=mosaic),
        shares={
            "face_mask_detection": 0.28 / 0.66 * (1 - wider_share),
            "ilc2021": 0.38 / 0.66 * (1 - wider_share),
            "wider_face": wider_share,
        },
        ignore_by=ignore_by,
        distil=distil,
        with_validation=with_validation,
    )
    run_training(settings, run, data, start, teacher, validate_minutes, begin_at)


@app.command()
def blend(
    part: Annotated[
        list[str],
        typer.Option(
            help="RUN:BACKBONE:REST, a run's folder, its share in the backbone and in all else; may be repeated."
        ),
    ],
    start: StartOption,
    out: Annotated[Path, typer.Option(help="Folder for the mixed weights; `train --begin-at` and `export` read it.")],
) -> None:
    """Mix the averaged weights of runs with the starting weights, which get the share that is left."""
    _torch_backend(1)
    import json

    import numpy as np

    from maskbatch_export.detector.model import Architecture, build_model
    from maskbatch_export.detector.train import blend as mix

    parts = []
    for text in part:
        run, backbone, rest = text.rsplit(":", 2)
        parts.append((Path(run) / "average.npz", float(backbone), float(rest)))
    settings = (parts[0][0].parent / "settings.json").read_text()
    values: dict[str, Any] = mix(
        build_model(Architecture.from_dict(json.loads(settings)["architecture"])), start, parts
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(settings)
    np.savez(out / "average.npz", **values)


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
def export(
    run: Annotated[Path, typer.Option(help="Folder of the run.", exists=True)],
    out: Annotated[Path, typer.Option(help="Where the ONNX file goes.")],
    threshold: Annotated[float, typer.Option(help="Score threshold for scanning, written into the metadata.")] = 0.35,
    nms_iou: float = 0.5,
    version: str = "1",
) -> None:
    """Write the averaged weights of a run as float32 ONNX and compare the file with Keras."""
    _torch_backend(1)
    import json

    import onnx

    from maskbatch_export.detector.model import Architecture, build_model
    from maskbatch_export.detector.onnx_export import check_parity, to_onnx
    from maskbatch_export.detector.train import load_average

    architecture = Architecture.from_dict(json.loads((run / "settings.json").read_text())["architecture"])
    model = build_model(architecture)
    load_average(model, run / "average.npz")
    onnx.save(to_onnx(model, _metadata(architecture.to_dict(), threshold, nms_iou, version)), out)
    typer.echo(f"{out}: largest difference to Keras {check_parity(model, out):.2e}")


@app.command()
def quantise(
    source: Annotated[Path, typer.Option(help="The float32 file.", exists=True)],
    out: Annotated[Path, typer.Option(help="Where the INT8 file goes.")],
    data: DataOption,
    count: Annotated[int, typer.Option(help="Pictures of the training part to calibrate on.")] = 120,
    method: Annotated[str, typer.Option(help="minmax, percentile or entropy.")] = "minmax",
    reduce_range: Annotated[bool, typer.Option(help="Weights of 7 bits, for processors without VNNI.")] = False,
) -> None:
    """Write the static INT8 form of an exported file."""
    from maskbatch_export.detector.data import read_pictures
    from maskbatch_export.detector.quantise import choose_pictures
    from maskbatch_export.detector.quantise import quantise as run_quantise

    pictures = choose_pictures(read_pictures(data, "train"), count)
    run_quantise(source, out, pictures, method=method, reduce_range=reduce_range)


@app.command()
def half(
    source: Annotated[Path, typer.Option(help="The float32 file.", exists=True)],
    out: Annotated[Path, typer.Option(help="Where the fp16 file goes.")],
) -> None:
    """Write the fp16 form of an exported file, for graphics processors; inputs and outputs stay as they are."""
    from maskbatch_export.detector.half import to_half

    to_half(source, out)


@app.command()
def evaluate(
    model: Annotated[list[str], typer.Option(help="An ONNX file of ours, yunet=FILE or scrfd=FILE; may be repeated.")],
    data: DataOption,
    part: Annotated[
        str, typer.Option(help="train, val or test (WIDER has no test part here: its val part is taken).")
    ] = "test",
    size: int = 640,
    nms_iou: float = 0.5,
    score: Annotated[float, typer.Option(help="Precision and recall are told at this score.")] = MIN_SCORE,
    ignore_by: Annotated[
        str | None,
        typer.Option(
            help="As --model: what this detector finds at .5 in the mask sets and no label explains counts neither way."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
) -> None:
    """Average precision and recall by face size, letterboxed, of one or more detectors on the same pictures."""
    import json

    from maskbatch_export.detector.data import MASK_SETS, WIDER, read_pictures
    from maskbatch_export.detector.evaluate import evaluate as judge
    from maskbatch_export.detector.rivals import open_detector
    from maskbatch_export.detector.unlabelled import ignore_unlabelled

    if part not in ("train", "val", "test"):
        raise typer.BadParameter("--part is train, val or test")
    detectors = {spec: open_detector(spec, size, nms_iou) for spec in model}
    others = [open_detector(ignore_by, size)] if ignore_by is not None else []
    report: dict[str, dict[str, object]] = {}
    for origin in (*MASK_SETS, WIDER):
        chosen = "val" if origin == WIDER and part == "test" else part
        pictures = read_pictures(data, chosen, (origin,))  # type: ignore[arg-type]
        if others:
            pictures, ignored = ignore_unlabelled(pictures, others, MASK_SETS)
            typer.echo(f"{origin}/{chosen}: {ignored} faces without a label ignored")
        for spec, detect in detectors.items():
            figures = judge(detect, pictures, size, score)
            report.setdefault(spec, {})[f"{origin}/{chosen}"] = figures
            recall = " ".join(f"{k}:{v:.3f}" for k, v in figures["recall"].items() if not k.startswith("n_"))
            typer.echo(
                f"{origin}/{chosen} {spec}: AP.5 {figures['ap50']:.4f} AP.35 {figures['ap35']:.4f} AP {figures['ap']:.4f} "
                f"| at {score:g} precision {figures['precision']:.3f} recall {figures['recall_at_score']:.3f} "
                f"| recall at 1 false/picture (score {figures['score_at_1_false_per_picture']:.3f}) {recall}"
            )
    if out is not None:
        out.write_text(json.dumps(report, indent=1))


@app.command()
def speed(
    model: Annotated[list[Path], typer.Option(help="ONNX files; run in turn, so that all meet the same machine.")],
    size: int = 640,
    rounds: int = 40,
) -> None:
    """Milliseconds per picture on one CPU thread, the files interleaved; the first file is the yardstick."""
    from maskbatch_export.detector.speed import compare

    for row in compare(model, size, rounds):
        typer.echo(f"{row.name}: median {row.median:.2f} ms, least {row.least:.2f} ms, {row.ratio:.3f} x the first")
