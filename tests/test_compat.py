import subprocess
import sys
import textwrap
import warnings
from importlib.metadata import distributions
from pathlib import Path

import pytest

from fldet import _compat

ROOT = Path(_compat.__file__).parents[1]

needs_lanes = pytest.mark.skipif(
    any(distributions(name="mmdet")), reason="mmdet 3.3 by its first authors has no lanes"
)


def run_python(code, *, path=ROOT):
    """Runs the code in a fresh interpreter and returns its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=path,
        env={"PYTHONPATH": f"{path}:{ROOT}", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_fldet_imports_nothing_heavy():
    printed = run_python("import sys, fldet; print(*sys.modules)")
    loaded = {name.partition(".")[0] for name in printed.split()}
    assert "fldet" in loaded
    assert not loaded & {"torch", "numpy", "mmcv", "mmengine", "mmdet", "torchvision", "rich"}


def test_install_twice_changes_nothing():
    _compat.install()
    before = list(sys.meta_path)
    _compat.install()
    assert sys.meta_path == before


@pytest.mark.parametrize("name", ["mmcv", "mmcv._extra", "imgaug", "json"])
def test_other_modules_are_left_alone(name):
    assert _compat._FallbackFinder.find_spec(name) is None
    assert _compat._AroundFinder.find_spec(name) is None


class TestImgaug:
    HIDE_THE_REAL_ONE = """
        import sys
        from importlib.machinery import PathFinder

        class WithoutImgaug(PathFinder):
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                hidden = name.partition(".")[0] == "imgaug"
                return None if hidden else super().find_spec(name, path, target)

        sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutImgaug
        import fldet.config
    """

    def run(self, code):
        return run_python(textwrap.dedent(self.HIDE_THE_REAL_ONE) + textwrap.dedent(code))

    def test_nobody_else_finds_a_stand_in(self):
        code = "import importlib.util; print(importlib.util.find_spec('imgaug'))"
        assert self.run(code) == "None\n"

    def test_a_real_one_wins(self, tmp_path):
        (tmp_path / "imgaug.py").write_text("real = True")
        printed = run_python("import fldet.config, imgaug; print(imgaug.real)", path=tmp_path)
        assert printed == "True\n"

    def test_a_real_one_is_not_patched_up(self, tmp_path):
        (tmp_path / "imgaug").mkdir()
        (tmp_path / "imgaug" / "__init__.py").touch()
        code = "import fldet.config, importlib.util as u; print(u.find_spec('imgaug.augmenters'))"
        assert run_python(code, path=tmp_path) == "None\n"

    @needs_lanes
    def test_mmdet_imports_a_real_one_when_it_needs_it(self, tmp_path):
        augmentables = tmp_path / "imgaug" / "augmentables"
        augmentables.mkdir(parents=True)
        for package in (augmentables.parent, augmentables):
            (package / "__init__.py").touch()
        (tmp_path / "imgaug" / "augmenters.py").write_text("Sometimes = dict")
        (augmentables / "lines.py").write_text("LineString = list")
        code = """
            import sys, fldet.config
            from mmdet.datasets.transforms import generate_line as lanes
            print("imgaug" in sys.modules)
            print(lanes.iaa.Sometimes(p=1), lanes.LineString("ab"))
        """
        printed = run_python(code, path=tmp_path)
        assert printed.endswith("False\n{'p': 1} ['a', 'b']\n")

    @needs_lanes
    def test_mmdet_says_what_is_missing_when_it_needs_it(self):
        printed = self.run(
            """
            from fldet.errors import UnavailableError
            from mmdet.datasets.transforms import generate_line as lanes
            print("imgaug" in sys.modules)
            try:
                lanes.LineString([])
            except UnavailableError as error:
                print(error)
            """
        )
        assert "False\nimgaug.augmentables.lines.LineString needs the package imgaug\n" in printed
        assert "Hint: pip install -U imaug" in printed


@needs_lanes
def test_what_pictures_and_lanes_need_is_imported_when_they_are_made():
    printed = run_python(
        """
        import sys, fldet.engine.train
        print([name for name in ("scipy", "matplotlib", "imgaug") if name in sys.modules])
        import numpy as np
        from mmdet.datasets.transforms import generate_line as lanes
        from mmdet.utils import mot_error_visualize as tracks
        line = lanes.InterpolatedUnivariateSpline([0, 1, 2], [0, 1, 4], k=2)
        print(float(line(3)), tracks.Rectangle((0, 0), 1, 2).get_height())
        print(type(tracks.plt.rcParams).__name__, tracks.mcolors.to_hex("red"))
        """
    )
    assert printed.splitlines()[-3:] == ["[]", "9.0 2", "RcParams #ff0000"]


def test_what_shards_is_imported_when_it_shards():
    printed = run_python(
        """
        import sys, fldet.engine.train
        from mmengine.model import MMFullyShardedDataParallel, is_model_wrapper
        from mmengine.optim import ZeroRedundancyOptimizer
        from mmengine.registry import OPTIMIZERS

        class Heir(ZeroRedundancyOptimizer):
            pass

        import torch
        import torch.distributed as dist

        weights = torch.nn.Linear(2, 1)
        print(is_model_wrapper(weights), OPTIMIZERS.get("ZeroRedundancyOptimizer").__module__)
        print([name for name in ("sympy", "torch.distributed.fsdp") if name in sys.modules])
        store = dist.HashStore()
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        optimizer = Heir(weights.parameters(), "SGD", lr=0.5)
        weights.bias.grad = torch.ones(1)
        before = weights.bias.item()
        optimizer.step()
        print(round(before - weights.bias.item(), 5), isinstance(optimizer, torch.optim.Optimizer))
        another = ZeroRedundancyOptimizer(weights.parameters(), "SGD", lr=0.5)
        print(len(another.state_dict()["param_groups"]))
        try:
            MMFullyShardedDataParallel(weights)
        except RuntimeError as error:
            print(error)  # of torch itself
        from mmengine._strategy.fsdp import FSDP_CONFIGS, StateDictType

        print(FSDP_CONFIGS.build({"type": "FullStateDictConfig"}).rank0_only)
        print(StateDictType["FULL_STATE_DICT"] is StateDictType.FULL_STATE_DICT)
        """
    )
    assert printed.splitlines()[-7:] == [
        "False mmengine.optim.optimizer.zero_optimizer",
        "[]",
        "0.5 True",
        "1",
        "FSDP needs a non-CPU accelerator device, but no accelerator device is detected.",
        "False",
        "True",
    ]


def test_a_training_imports_no_compiler_and_draws_nothing(tiny_config):
    printed = run_python(
        f"""
        import sys, fldet
        cfg = fldet.load_config({str(tiny_config)!r}, {{"train_dataloader.num_workers": 0}})
        result = fldet.train(cfg, work_dir={str(tiny_config.parent / "run")!r}, max_iters=1)
        heavy = ("torch._dynamo", "torch.distributed.fsdp", "sympy", "matplotlib")
        print(result.iterations, [name for name in heavy if name in sys.modules])
        """
    )
    assert printed.splitlines()[-1] == "1 []"


class TestSilenceImports:
    @pytest.mark.parametrize(
        ("printed", "stderr", "reason"),
        [
            ("Could not import OneDL. Skipping OneDL datasets.\n", "", "known noise"),
            ("something else\n", "something else\n", "unknown text is kept, on stderr"),
            ("unfinished", "unfinished", "also without a line end"),
            ("", "", "silence"),
        ],
    )
    def test_stdout(self, capsys, printed, stderr, reason):
        with _compat.silence_imports():
            sys.stdout.write(printed)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == stderr, reason

    def test_text_survives_a_failing_import(self, capsys):
        def fail():
            print("about to fail")
            raise ImportError("broken")

        with pytest.raises(ImportError, match="broken"), _compat.silence_imports():
            fail()
        assert capsys.readouterr().err == "about to fail\n"

    @pytest.mark.parametrize(
        ("message", "category"),
        [
            ("faster_coco_eval is not installed, metrics will not be computed.", UserWarning),
            ("`torch.jit.script` is deprecated. Please switch.", DeprecationWarning),
            ("``MultiScaleDeformableAttention`` has been moved to", ImportWarning),
        ],
    )
    def test_known_warnings_are_swallowed(self, message, category):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with _compat.silence_imports():
                warnings.warn(message, category, stacklevel=1)

    def test_other_warnings_pass(self):
        with pytest.warns(UserWarning, match="new"), _compat.silence_imports():
            warnings.warn("new", UserWarning, stacklevel=1)

    def test_mmdet_is_imported_in_silence(self):
        pytest.importorskip("mmdet", reason="mmdet is not installed")
        code = """
            import sys, warnings
            import fldet.config
            sys.modules["faster_coco_eval"] = None  # not installed
            warnings.filterwarnings("error", "faster_coco_eval")
            import mmdet.datasets, mmdet.models, mmdet.evaluation
        """
        assert run_python(code) == ""


class TestUpstreamMmdet:
    """mmdet 3.3.0 refuses any mmcv from 2.2.0 on while it is imported."""

    @pytest.fixture
    def site(self, tmp_path):
        (tmp_path / "mmcv").mkdir()
        (tmp_path / "mmcv" / "__init__.py").write_text("__version__ = '2.3.6'")
        (tmp_path / "mmdet").mkdir()
        (tmp_path / "mmdet" / "__init__.py").write_text(
            "import mmcv\nseen = mmcv.__version__\nassert seen < '2.2.0'"
        )
        return tmp_path

    def test_sees_the_version_it_wants(self, site):
        (site / "mmdet-3.3.0.dist-info").mkdir()
        (site / "mmdet-3.3.0.dist-info" / "METADATA").write_text("Name: mmdet\nVersion: 3.3.0\n")
        code = "import fldet.config, mmdet, mmcv; print(mmdet.seen, mmcv.__version__)"
        assert run_python(code, path=site) == "2.1.0 2.3.6\n"

    @pytest.mark.skipif(any(distributions(name="mmdet")), reason="mmdet is installed by that name")
    def test_other_distributions_are_left_alone(self, site):
        code = """
            import fldet.config
            try:
                import mmdet
            except AssertionError:
                print("refused")
        """
        assert run_python(code, path=site) == "refused\n"
