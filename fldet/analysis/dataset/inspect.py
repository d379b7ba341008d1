"""What a folder or file holds, as data."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fldet.data.formats.found import FoundData


def look_into(found: "FoundData") -> dict[str, Any]:
    """Returns format, root, classes, notes, and the summary of each split."""
    from fldet.analysis.dataset.summary import summarize_content
    from fldet.data.formats.found import oddities, used_classes

    contents = {split: found.read(split) for split in found.splits}
    classes, groups = used_classes(contents.values())
    notes = [
        *oddities(found, contents),
        *(f"{name!r} only groups other classes" for name in groups),
    ]
    return {
        "format": found.format,
        "root": found.root,
        "classes": classes,
        "notes": notes,
        "splits": {
            split: summarize_content(
                contents[split], found.splits[split]["ann_file"], found.image_folder(split)
            )
            for split in contents
        },
    }
