"""``fldet data check``."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fldet.cli import options
from fldet.cli.data.inspect import Columns
from fldet.cli.output import Output, command, note
from fldet.cli.printed import DataChecked
from fldet.errors import DataError, UsageError, shorten
from fldet.progress import with_progress

ANNOTATIONS = (".json", ".yaml", ".yml", ".xml", ".csv", ".data", ".names", ".txt")

if TYPE_CHECKING:
    from fldet.data.check import DataCheck, DataProblem
    from fldet.data.coco import CocoDataset

    Source = tuple[Path, Path | None, Callable[[list[DataError]], Any] | None]

EXAMPLES = """
  fldet data check configs/retinanet/r50_fpn_1x.py --cfg-options data_root=FOLDER
  fldet data check FOLDER
  fldet data check annotations/train.json --images images/ --deep
  fldet data check configs/bccd/retinanet_r18_bccd.py --split train --split val --json
"""


@command
def check(
    source: Annotated[
        str,
        typer.Argument(
            help="Config, folder of a data set, or its annotation file.", metavar="CONFIG|PATH"
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images, of all but YOLO.", show_default="looked for"),
    ] = None,
    columns: Columns = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="train|val|test",
            help="Split to check, with a config or a data set; may be repeated.",
            show_default="all it has",
        ),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every image, as training does.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of processes that read images.", show_default="one for each core"
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=1, help="Problems to list of each kind; JSON has them all.")
    ] = 5,
    cfg_options: options.CfgOptions = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List what is wrong with annotations and images.

    The exit code is 1 if anything is. Image files are read as far as their header and their end;
    --deep decodes them.
    """
    note(f"fldet data check {source}")
    from fldet.config.load import find_config

    if source.endswith(".py"):
        find_config(source)
    import fldet.engine  # noqa: F401  first: it silences MMDetection's import
    from fldet.data.check import UNREADABLE, check_data
    from fldet.processes import core_count

    sources = _sources(source, images, columns, split or [], cfg_options or [])
    seen: dict[str, tuple[Path, str]] = {}
    found = [
        check_data(
            *(ann_file, image_dir),
            deep=deep,
            workers=workers or core_count(),
            track=lambda facts, count: with_progress(facts, "images", count),
            read=read,
            seen=seen,
        )
        for ann_file, image_dir, read in sources
    ]
    count = sum(len(one.problems) for one in found)
    Output("data check", as_json=json, quiet=quiet).result(
        DataChecked(count, found),
        text=lambda: "\n\n".join("\n".join(_lines(one, examples)) for one in found),
        essential=count,
    )
    for problem in (problem for one in found for problem in one.problems):
        if problem.kind == UNREADABLE:
            raise DataError(problem.detail, expected="annotations that can be looked into")
    if count:
        raise typer.Exit(1)


def _sources(
    source: str,
    images: Path | None,
    columns: str | None,
    splits: list[str],
    cfg_options: list[str],
) -> "list[Source]":
    """Returns annotation files, their folders of images, and how to read them if not as COCO."""
    path = Path(source)
    if not (path.is_dir() or path.suffix in ANNOTATIONS):
        if columns is not None:
            raise UsageError("--columns go with a CSV")
        if images is not None:
            raise UsageError(
                "--images goes with an annotation file",
                expected="the folder of a config's images is data_prefix.img of its data set",
            )
        from fldet.config.load import load_config
        from fldet.config.prepare import datasets_of

        return [_source(*pair) for pair in datasets_of(load_config(source, cfg_options), splits)]
    if cfg_options:
        raise UsageError("--cfg-options go with a config, not with a data set")
    if images is None or splits or path.suffix != ".json" or _is_imported(path):
        return _recognised(path, images, columns, splits)
    if not images.is_dir():
        raise DataError(f"folder of images not found: {images}", expected="a folder")
    return [(path, images, None)]


def _is_imported(path: Path) -> bool:
    from fldet.data.foreign import foreign_format

    form = foreign_format(path) if path.is_file() else None
    return form is not None and bool(form.read_as)


def _recognised(
    path: Path, images: Path | None, columns: str | None, splits: list[str]
) -> "list[Source]":
    """Returns what ``data inspect`` finds at a path; a COCO file may have no images there."""
    from fldet.data.formats.recognise import recognise
    from fldet.registry import dataset_class

    try:
        found = recognise(path, images, columns)
    except DataError as error:
        if path.suffix != ".json" or splits or images or columns:
            raise
        note(f"the images are not looked at: no --images FOLDER, and {error.message}")
        return [(path, None, None)]
    for split in splits:
        if split not in found.splits:
            raise UsageError(
                f"{path} has no split {split!r}", expected=f"one of: {', '.join(found.splits)}"
            )
    options = [found.options(split) for split in splits or found.splits]
    return [_source(dataset_class(one["type"]), one) for one in options]


def _source(kind: "type[CocoDataset]", dataset: "Mapping[str, Any]") -> "Source":
    """Returns what is looked at of a data set: all its files, also where lists divide them."""
    from fldet.data.image_lists import ONLY, WITHOUT

    dataset = {key: value for key, value in dataset.items() if key not in (ONLY, WITHOUT)}
    read = None if kind.reads_coco_file else partial(kind.read, dataset)
    return kind.annotation_file(dataset), kind.image_folder(dataset), read


def _lines(found: "DataCheck", examples: int) -> Iterator[str]:
    """Yields counts, then the problems by kind, at most ``examples`` of each."""
    yield str(found.ann_file)
    yield f"  {found.images} images, {found.annotations} annotations, {found.categories} categories"
    if found.image_dir is not None:
        how = "decoded" if found.deep else "looked at (header and end)"
        turned = f", {found.images_turned} turned upright by EXIF data" * bool(found.images_turned)
        yield f"  {found.images_read} image files {how}{turned}"
    yield f"  {len(found.problems)} problems" if found.problems else "  nothing is wrong"
    for kind, count in found.counts.items():
        yield f"  {kind}: {count}"
        of_kind = [problem for problem in found.problems if problem.kind == kind]
        yield from (f"    {_line(problem, found)}" for problem in of_kind[:examples])
        if count > examples:
            yield f"    ... and {count - examples} more"


def _line(problem: "DataProblem", found: "DataCheck") -> str:
    parts = [] if problem.file == found.ann_file else [str(problem.file)]
    if problem.entry:
        parts.append(f"{problem.entry} (id {shorten(problem.id)})")
    return "  ".join([*parts, *filter(None, (problem.field, problem.detail))])
