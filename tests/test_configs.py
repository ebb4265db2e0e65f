"""Every preset composes and fits the Python signatures; faults are told all at once, with the nearest names."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from ssl_video.cli.parts import PROVIDED, EvaluateSettings, TrainSettings
from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.config import check_trusted, compose_checked, expand_sweep, locate
from ssl_video.utils.errors import InputError
from support.methods import compose_train

CONF = conf_dir()
PRESETS = sorted(
    str(file.relative_to(CONF).with_suffix(""))
    for file in CONF.rglob("*.yaml")
    if file.parent != CONF and not file.stem.startswith("_")
)

# The others are slow together; `make check` composes them all.
ONE_OF_EACH = set({preset.split("/")[0]: preset for preset in PRESETS}.values())


def compose_evaluate(*overrides: str) -> DictConfig:
    return compose_checked("evaluate", ["checkpoint=random", *overrides], provided=PROVIDED, settings=EvaluateSettings)


def test_number_of_presets() -> None:
    """A glob that finds too little would make the next test pass on nothing."""
    assert len(PRESETS) == 224


@pytest.mark.parametrize(
    "preset", [pytest.param(one, marks=() if one in ONE_OF_EACH else pytest.mark.slow) for one in PRESETS]
)
def test_every_preset_composes_and_fits(preset: str) -> None:
    group, name = preset.split("/")
    if group == "evaluation":
        config = compose_evaluate(f"{group}={name}")
    elif group == "logger":
        config = compose_train(f"logger=[{name}]")
    else:
        config = compose_train(f"{group}={name}")
    assert isinstance(config, DictConfig)


def _targets() -> set[str]:
    found = set()
    for file in CONF.rglob("*.yaml"):
        nodes = [OmegaConf.to_container(OmegaConf.load(file))]
        while nodes:
            node = nodes.pop()
            if isinstance(node, dict):
                found |= {node["_target_"]} if "_target_" in node else set()
                nodes.extend(node.values())
            elif isinstance(node, list):
                nodes.extend(node)
    return found


@pytest.mark.parametrize(
    ("package", "base"),
    [
        ("methods", "ssl_video.methods.base.SSLMethod"),
        ("backbones", "ssl_video.backbones.base.Backbone"),
        ("evaluation", None),
        ("data.samplers", None),
        ("data.transforms", "ssl_video.data.transforms.base.Transform"),
    ],
)
def test_every_public_class_has_a_preset(package: str, base: str | None) -> None:
    targets = _targets()
    parent = importlib.import_module(f"ssl_video.{package}")
    public = []
    for module in pkgutil.iter_modules(parent.__path__, f"ssl_video.{package}."):
        for name, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            own = member.__module__ == module.name and not name.startswith("_")
            made_for_it = issubclass(member, locate(base)) if base else callable(getattr(member, "__call__", None))  # type: ignore[arg-type]  # noqa: B004
            has_call = base is not None or "__call__" in vars(member)
            protocol = getattr(member, "_is_protocol", False)
            if own and made_for_it and has_call and not protocol and not inspect.isabstract(member):
                public.append(f"{module.name}.{name}")
    assert public
    assert [name for name in public if name not in targets] == []


def test_every_target_of_ours_exists() -> None:
    ours = {target for target in _targets() if target.startswith("ssl_video.")}
    assert len(ours) > 10
    for target in ours:
        assert callable(locate(target))


def test_command_line_wins_over_the_method_and_the_experiment() -> None:
    config = compose_train("method=vcop", "sampler=two_clips", "optimizer=sgd", "optimizer.lr=0.5")
    assert config.sampler._target_.endswith("RandomClips")
    assert config.optimizer.lr == 0.5
    config = compose_train("experiment=vcop_r2plus1d_ucf101", "seed=4", "batch_size=2")
    assert (config.seed, config.batch_size) == (4, 2)


METHODS = [preset.split("/")[1] for preset in PRESETS if preset.startswith("method/")]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_data_set_that_brings_its_reader(method: str) -> None:
    config = compose_train("dataset=jester", f"method={method}")
    assert config.dataset.name == "jester"
    assert config.reader._target_.endswith("FramesReader")


def test_command_line_wins_over_the_data_set_also_in_evaluation() -> None:
    assert compose_train("reader=pyav", "dataset=jester").reader._target_.endswith("PyAVReader")
    assert compose_train("dataset=ucf101").reader._target_.endswith("AutoReader")
    assert compose_evaluate("dataset=jester").reader._target_.endswith("FramesReader")
    assert compose_evaluate("dataset=jester", "reader=pyav").reader._target_.endswith("PyAVReader")


def test_experiment_sets_root_keys() -> None:
    """Catches `_self_` behind `experiment`, which overrules presets in silence."""
    assert compose_train("experiment=vcop_r2plus1d_ucf101").batch_size == 8


def test_epochs_replace_the_default_number_of_steps() -> None:
    assert (compose_train().trainer.max_steps, compose_train().trainer.max_epochs) == (600, None)
    config = compose_train("trainer.max_epochs=3")
    assert (config.trainer.max_steps, config.trainer.max_epochs) == (-1, 3)


def refusal(*overrides: str) -> str:
    with pytest.raises(InputError) as fault:
        compose_train(*overrides)
    return str(fault.value)


def test_unknown_choice_names_the_nearest_and_all() -> None:
    message = refusal("method=mocco")
    assert "there is no method=mocco; did you mean 'moco'?" in message
    assert "vcop" in message


def test_unknown_key_names_the_nearest() -> None:
    assert "there is no key 'trainer.max_step'; did you mean 'trainer.max_steps'?" in refusal("trainer.max_step=3")


def test_misspelt_key_inside_a_partial_is_found() -> None:
    message = refusal("optimizer=sgd", "+optimizer.momentumm=0.9")
    assert "optimizer.momentumm: torch.optim.SGD has no argument 'momentumm'; did you mean 'momentum'?" in message


def test_text_where_a_number_is_needed_is_found() -> None:
    assert "method.temperature='warm'" in refusal("method.temperature=warm")
    assert "batch_size='many'" in refusal("batch_size=many")
    assert "batch_size=0" in refusal("batch_size=0")


def test_unknown_target_names_the_nearest() -> None:
    message = refusal("method._target_=ssl_video.methods.moco.MoCoo")
    assert "ssl_video.methods.moco has no 'MoCoo'; did you mean 'MoCo'?" in message


def test_all_faults_come_in_one_message() -> None:
    message = refusal("method=mocco", "optimizer.lrr=1", "trainer.max_step=2")
    assert message.startswith("3 faults")
    message = refusal("+optimizer.lrr=1", "method.temperature=warm")
    assert message.startswith("2 faults")


def test_an_override_that_is_none_is_explained() -> None:
    assert "is not of the form key=value" in refusal("method=[moco")


def test_config_dir_adds_a_method_without_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("_target_: my_methods.Mine\nweight: 2.0\n")
    (tmp_path / "my_methods.py").write_text(
        "from ssl_video.methods.vcop import VCOP\n\n\nclass Mine(VCOP):\n"
        "    def __init__(self, *, weight: float, **rest):\n        super().__init__(**rest)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = compose_checked(
        "train", ["method=mine"], provided=PROVIDED, settings=TrainSettings, config_dirs=[str(tmp_path)]
    )
    assert config.method._target_ == "my_methods.Mine"
    with pytest.raises(InputError, match="there is no method=mine"):
        compose_train("method=mine")


def test_config_from_a_file_builds_trusted_classes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_trusted({"backbone": {"_target_": "ssl_video.backbones.r3d.R3D"}})
    evil = {"backbone": {"_target_": "os.system"}}
    with pytest.raises(InputError, match=r"asks for backbone: os\.system.*trusted_packages=\[os\]"):
        check_trusted(evil)
    (tmp_path / "my_nets.py").write_text("class Net: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_trusted({"backbone": {"_target_": "my_nets.Net"}}, packages=["my_nets"])


def test_sweeps_are_expanded_as_hydra_does() -> None:
    jobs = expand_sweep(["method=moco,vcop", "seed=0,1", "batch_size=4"])
    assert jobs == [
        ["method=moco", "seed=0", "batch_size=4"],
        ["method=moco", "seed=1", "batch_size=4"],
        ["method=vcop", "seed=0", "batch_size=4"],
        ["method=vcop", "seed=1", "batch_size=4"],
    ]


def test_every_experiment_is_held_to_a_paper() -> None:
    """Each experiment is named by a test that compares it with its paper's table."""
    tests = "".join(file.read_text() for file in (Path(__file__).parent / "experiments").glob("test_*.py"))
    experiments = [preset.split("/")[1] for preset in PRESETS if preset.startswith("experiment/")]
    assert experiments
    assert [name for name in experiments if f'"{name}"' not in tests] == []


@pytest.mark.parametrize("group", ["logger", "callbacks"])
def test_a_list_of_choices_may_be_empty(group: str) -> None:
    config = compose_checked("train", [f"{group}=[]"], provided=PROVIDED, settings=TrainSettings)
    assert config[group] == {}
