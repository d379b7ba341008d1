"""``fldet predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.output import Output, command, loading, note
from fldet.errors import UsageError

if TYPE_CHECKING:
    from fldet.inference.results import PredictResult

MOST_SHOWN = 10  # images whose objects are printed
MOST_SCORES = 5

EXAMPLES = """
  fldet predict work_dirs/retinanet_r18_shapes photo.jpg
  fldet predict best.pth data/images --format coco --format jsonl --score-thr 0.05 --gpus 8
  fldet predict best.pth photo.jpg --thresholds thresholds.json
  fldet predict model.onnx film.mp4 --every 25 --out film
  fldet predict best.pth photo.jpg --slice 640 --whole --out slices
  fldet predict best.pth film.mp4 --out frames --video found.mp4
  find . -name '*.jpg' | fldet predict best.pth - --format jsonl --out found --resume
"""


@command
def predict(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Weights (.pth), a work dir (its best checkpoint, else its newest), an exported "
            "model (.onnx, .torchscript), or the folder of a cross-validation: all its detectors.",
            metavar="CHECKPOINT",
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            help="An image, a folder with all below it, a quoted glob, a video, the address of an "
            "image (https://...), camera:0, or - for one path a line on stdin.",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write into.",
            show_default="predictions; if it holds some, predictions_2, ...",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="pictures|coco|coco-dataset|yolo|voc|label-studio|csv|jsonl",
            help="What to write besides predictions.jsonl; may be repeated.",
            show_default="pictures",
        ),
    ] = None,
    score_thr: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Lowest score that is kept.",
            show_default="the thresholds in an exported model, else 0.3",
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(help="Lowest score of each class, a file of fldet analyze thresholds."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Largest number of images per batch.")] = 8,
    every: Annotated[int, typer.Option(min=1, help="Take every N-th frame of a video.")] = 1,
    slice_size: options.Slice = None,
    overlap: options.Overlap = 0.2,
    whole: options.Whole = False,
    tta: options.Tta = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            metavar="fast|exact",
            help="fast decodes JPEGs that are made much smaller anyway at a half, a quarter or an "
            "eighth of their sides.",
            show_default="as the model's config says",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the predictions that an earlier run left in the folder."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove what an earlier run wrote into the folder.")
    ] = False,
    video: Annotated[
        Path | None,
        typer.Option(help="Write the pictures of a video's frames as a video too, .mp4."),
    ] = None,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help="Open the picture, the folder of several or the video of --video at the end, with "
            "the program that this system has for it.",
        ),
    ] = False,
    agnostic_nms: options.AgnosticNms = False,
    hide_labels: options.HideLabels = False,
    hide_scores: options.HideScores = False,
    line_width: options.LineWidth = None,
    config: options.ConfigOfCheckpoint = None,
    engine: options.Engine = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32|bf16",
            help="What the network computes in; bf16 needs a processor or GPU that has it and, of "
            "ONNX files, --engine openvino.",
            show_default="fp32",
        ),
    ] = None,
    device: options.Device = "auto",
    trust_checkpoint: options.TrustCheckpoint = False,
    launcher: options.Launcher = "auto",
    gpus: options.Gpus = 1,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find objects in images or a video, with a checkpoint alone.

    Images that cannot be read are skipped and named; the exit code is then 1.
    """
    from fldet.checkpoints.paths import require_checkpoints
    from fldet.inference.sources import check_source

    check_source(source, gpus)
    require_checkpoints(checkpoint)
    onnx = checkpoint.suffix == ".onnx"
    with loading(f"predict {checkpoint}", *([engine or "onnxruntime"] if onnx else [])):
        from fldet.data.slicing.views import parse_views
        from fldet.inference.predict import check_options, check_scores
        from fldet.inference.predict import predict as run
        from fldet.inference.video import check_video, write_video
        from fldet.pictures.boxes import DrawOptions

    wanted = formats or ["pictures"]
    if show and "pictures" not in wanted:
        raise UsageError("--show without pictures", expected="--format pictures too")
    if video:
        check_video(video, source, has_pictures="pictures" in wanted)
    views = parse_views(slice_size, overlap, whole=whole, tta=tta or ())
    if gpus > 1:
        check_options(source, out, wanted, resume=resume, overwrite=overwrite)
        check_scores(score_thr, thresholds)
        from fldet.engine.launch import relaunch

        relaunch(None, gpus, phases=(), device=device)
        return
    result = run(
        checkpoint,
        source,
        out,
        config=config,
        formats=wanted,
        score_thr=score_thr,
        thresholds=thresholds,
        batch_size=batch_size,
        every=every,
        views=views,
        resume=resume,
        overwrite=overwrite,
        device=device,
        engine=engine,
        precision=precision,
        decoder=decoder,
        launcher=launcher,
        trust_checkpoint=trust_checkpoint,
        agnostic_nms=agnostic_nms,
        drawing=DrawOptions(hide_labels, hide_scores, line_width),
    )
    if result is not None:
        if video and result.pictures:
            note(f"wrote {write_video(source, result.pictures, video, every)}")
        output = Output("predict", as_json=json, quiet=quiet)
        output.result(result, text=lambda: prediction_text(result), essential=result.out)
        if show and result.pictures:
            open_drawn(video or result.pictures)
        if result.skipped:
            note(f"{result.skipped} images could not be read or drawn; exit code 1")
            raise typer.Exit(1)


def open_drawn(drawn: Path) -> None:
    """Opens a file, or a folder's only one, else the folder; says where it is if nothing can."""
    files = [path for path in drawn.rglob("*") if path.is_file()] if drawn.is_dir() else []
    if typer.launch(str((files[0] if len(files) == 1 else drawn).resolve())):
        note(f"nothing here opens pictures: they are in {drawn}")


def prediction_text(result: "PredictResult") -> str:
    """Returns what is in few images, the counts, then the paths of what was written."""
    speed = result.images / max(result.seconds, 1e-9)
    few = result.detections if result.images <= MOST_SHOWN else ()
    lines = [
        *map(objects_of, few),
        f"{result.images} images, {result.boxes} boxes, {result.seconds:.1f} s ({speed:.1f} "
        f"images/s), {result.skipped} skipped",
        *([f"{result.already_done} were done before"] if result.already_done else []),
        *map(str, [*result.files, *([result.pictures] if result.pictures else [])]),
    ]
    return "\n".join(lines)


def objects_of(line: dict[str, Any]) -> str:
    """Returns the classes in an image with their scores: ``a.jpg: cat 0.91, 2 dog 0.80 0.75``."""
    scores: dict[str, list[float]] = {}
    for name, score in zip(line["names"], line["scores"], strict=True):
        scores.setdefault(name, []).append(score)
    parts = []
    for name, found in scores.items():
        digits = " ".join(f"{score:.2f}" for score in found[:MOST_SCORES])
        count = f"{len(found)} " if len(found) > 1 else ""
        parts.append(f"{count}{name} {digits}{' ...' if len(found) > MOST_SCORES else ''}")
    frame = f" frame {line['frame']}" if "frame" in line else ""
    return f"{line['file']}{frame}: {', '.join(parts) or 'nothing'}"
