"""What the config in a checkpoint or an exported model may name: a closed list, by kind of place.

MMEngine builds what a ``type`` leads to: a registered class, else anything that can be imported by
that name, functions that run commands among them. A config from a file must not choose that. So
each place of a model has the modules whose registered classes may stand there; what is found in no
registry, or elsewhere, is refused before anything is built.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mmengine.registry import Registry

from fldet import plugins
from fldet.config.names import registries

_EXTRACTORS = ("fldet.models.roi_heads.crop_extractor", "mmdet.models.roi_heads.roi_extractors")
_TASKS, _OURS = "mmdet.models.task_modules", "fldet.models.task_modules"
_PREPROCESSORS = "mmdet.models.data_preprocessors"
_HEADS = tuple(
    f"{one}.models.{kind}_heads" for one in ("fldet", "mmdet") for kind in ("dense", "roi")
)


@dataclass(frozen=True)
class Place:
    """What may stand behind a key."""

    keys: str  # pattern that the key ends with
    what: str  # in words, for messages
    registry: str  # where the names are looked up; empty for those that no registry has
    modules: tuple[str, ...] = ()  # registered classes below these, and those of plug-ins
    names: frozenset[str] = frozenset()  # these and no others; empty for all below modules


PLACES = (
    Place(r"^model", "detector", "MODELS", ("fldet.models.detectors", "mmdet.models.detectors")),
    Place(
        r"data_preprocessor",
        "preprocessor",
        "MODELS",
        ("fldet.data.preprocessor", _PREPROCESSORS),
        frozenset({"DetDataPreprocessor", "BoxInstDataPreprocessor"}),
    ),
    Place(
        r"^batch_augments",
        "change of a batch",
        "MODELS",
        ("fldet.data.preprocessor", _PREPROCESSORS),
        frozenset({"BatchFixedSizePad", "BatchResize", "BatchSyncRandomResize"})
        | {"SizeByIteration"},
    ),
    Place(r"backbone", "backbone", "MODELS", ("fldet.models.backbones", "mmdet.models.backbones")),
    Place(r"neck", "neck", "MODELS", ("fldet.models.necks", "mmdet.models.necks")),
    Place(r"head|stages", "head", "MODELS", (*_HEADS, "mmdet.models.seg_heads")),
    Place(r"roi_extractor", "RoI extractor", "MODELS", _EXTRACTORS),
    Place(r"loss(_\w+)?", "loss", "MODELS", ("fldet.models.losses", "mmdet.models.losses")),
    Place(r"normalizer", "normalizer", "MODELS", ("fldet.losses.normalizers",)),
    Place(r"generator", "anchor generator", "TASK_UTILS", (_OURS, f"{_TASKS}.prior_generators")),
    Place(r"(bbox|anchor)_coder", "box coder", "TASK_UTILS", (f"{_TASKS}.coders",)),
    Place(r"assigner|calculator|costs?", "assigner", "TASK_UTILS", (_OURS, f"{_TASKS}.assigners")),
    Place(r"sampler", "sampler", "TASK_UTILS", (f"{_TASKS}.samplers",)),
    Place(r"miner", "miner", "TASK_UTILS", (f"{_OURS}.miners",)),
    # MMCV evaluates this name as an expression.
    Place(r"^nms|dqs_cfg", "NMS", "", names=frozenset({"nms", "soft_nms"})),
    Place(
        r"^roi_layer",
        "RoI layer",
        "",
        names=frozenset({"RoIAlign", "RoIPool", "SimpleRoIAlign"})
        | {"DeformRoIPoolPack", "ModulatedDeformRoIPoolPack"},
    ),
    # Words of two modules of their own: feature pyramid grids, Cascade RPN.
    Place(
        r"_trans", "connection", "", names=frozenset({"conv", "interpolation_conv", "last_conv"})
    ),
    Place(r"adapt_cfg", "adaption", "", names=frozenset({"dilation", "offset"})),
    Place(
        r"cfgs?|dcn|sac|positional_encoding|pixel_decoder",
        "layer",
        "MODELS",
        (
            "mmcv.cnn.bricks",
            "mmcv.ops",
            "mmdet.models.layers",
            "mmengine.utils",
            "torch.nn.modules",
        ),
    ),
    Place(
        r"pipeline",
        "transform of test images",
        "TRANSFORMS",
        ("fldet.data", "mmdet.datasets.transforms", "mmcv.transforms"),
        frozenset({"LoadImage", "LoadImageFromFile", "LoadImageFromNDArray"})
        | {"LoadAnnotations", "LoadEmptyAnnotations", "PackDetInputs", "RandomFlip"}
        | {"Resize", "FixScaleResize", "FixShapeResize", "ResizeShortestEdge"}
        | {"Pad", "CenterCrop", "RandomCenterCropPad", "Normalize"},
    ),
)

# Of the modules above, but they read files, configs or other models that their arguments name.
DENIED = frozenset(
    {"ATSSVLFusionHead", "Detectron2Wrapper", "GLIP", "GroundingDINO", "GroundingDINOHead"}
    | {"KnowledgeDistillationSingleStageDetector", "LAD", "SemiBaseDetector", "SoftTeacher"}
)


def place_of(key: str) -> Place | None:
    """Returns what may stand behind a key of a model's config, None if nothing with a type may."""
    return next((one for one in PLACES if re.search(rf"(?:{one.keys})$", key)), None)


def may_stand(name: str, place: Place, scope: str) -> bool:
    """Returns whether ``name`` is one of those that may stand at a place; imports nothing by it.

    ``scope`` is that of names without one: ``FPN``, not ``fldet.RetinaHead``.
    """
    given, _, bare = name.rpartition(".")
    if bare in DENIED or (place.names and bare not in place.names):
        return False
    if not place.registry:
        return not given
    found = _look_up(registries()[place.registry].root, given, bare, scope)
    if found is None:
        return False
    cls, tree = found
    if not inspect.isclass(cls):
        return False
    package = cls.__module__.partition(".")[0]
    if is_plugin(tree.scope) or is_plugin(package):
        return True
    return any(f"{cls.__module__}.".startswith(f"{module}.") for module in place.modules)


def is_scope(name: str) -> bool:
    """Returns whether names may have this scope: ours, MMDetection's, that of a plug-in."""
    return name in ("fldet", "mmdet", "mmengine") or is_plugin(name)


def is_plugin(scope: str) -> bool:
    """Returns whether an installed plug-in has this scope."""
    return plugins.find(plugins.SCOPES, scope) is not None


def _look_up(root: Registry, given: str, bare: str, scope: str) -> tuple[object, Registry] | None:
    """Returns what MMEngine would find in its registries, and where; None if nowhere."""
    if not is_scope(given or scope):
        return None
    plugins.load_scope(given or scope)
    trees = {tree.scope: tree for tree in _trees(root)}
    tree = trees.get(given or scope, root)
    while tree is not None:
        if bare in tree.module_dict:
            return tree.module_dict[bare], tree
        tree = None if given else tree.parent
    return None


def _trees(root: Registry) -> Iterator[Registry]:
    root.import_from_location()
    yield root
    for child in root.children.values():
        if is_scope(child.scope):
            yield from _trees(child)
