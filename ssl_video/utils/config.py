"""Composing and checking a configuration before anything heavy starts, and building objects from it.

Hydra stops at the first fault and accepts a wrong key inside a ``_partial_`` node in silence. Here every override,
every ``_target_``, every key and every plain value is checked against the Python signature, and all faults come in one
message, each with the nearest name.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, InstantiationException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from ssl_video.utils.conf_path import conf_dir
from ssl_video.utils.errors import InputError

# Keys that hydra.utils.instantiate reads itself.
_RESERVED = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}

# Packages whose classes a config that comes from a file (a checkpoint) may build.
TRUSTED_PACKAGES = ("ssl_video", "torch.optim")

_extra_config_dirs: list[str] = []


class _ConfigDirs(SearchPathPlugin):
    """Gives the compose API the folders of ``--config-dir``, which it has no argument for."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in _extra_config_dirs:
            search_path.append("command-line", f"file://{folder}")


def register() -> None:
    """Registers the resolvers that the YAML files use; may be called again."""
    OmegaConf.register_new_resolver("unless", _unless, replace=True)
    if not any(plugin is _ConfigDirs for plugin in Plugins.instance().discover(SearchPathPlugin)):
        Plugins.instance().register(_ConfigDirs)


def _unless(other: Any, value: Any, otherwise: Any) -> Any:
    """``${unless:${a},b,c}``: b where a is null, else c."""
    return value if other is None else otherwise


@contextmanager
def _hydra(config_dirs: Sequence[str]) -> Iterator[None]:
    register()
    previous = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    _extra_config_dirs[:] = [str(Path(folder).resolve()) for folder in config_dirs]
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield
    finally:
        _extra_config_dirs.clear()
        GlobalHydra.instance().clear()
        if previous is not None:
            GlobalHydra.instance().initialize(previous)


def compose_checked(
    config_name: str,
    overrides: Sequence[str],
    *,
    provided: Mapping[str, Collection[str]],
    settings: type,
    config_dirs: Sequence[str] = (),
) -> DictConfig:
    """Composes one job's configuration and checks all of it.

    Args:
        config_name: the primary file, ``train`` or ``evaluate``.
        overrides: as on the command line, without ``-m`` and the like.
        provided: per node, the arguments that the program passes itself (``{"method": {"backbone", ...}}``).
        settings: class whose annotations are the types of the top-level values; where the type is itself such a class,
            its keys stand in a node of that name beside the arguments of what the node builds.
        config_dirs: further folders with config groups.

    Raises:
        InputError: lists every fault.
    """
    return compose_job(config_name, overrides, provided=provided, settings=settings, config_dirs=config_dirs)[0]


def compose_job(
    config_name: str,
    overrides: Sequence[str],
    *,
    provided: Mapping[str, Collection[str]],
    settings: type,
    config_dirs: Sequence[str] = (),
) -> tuple[DictConfig, dict[str, str]]:
    """As ``compose_checked``; also the chosen option of each config group, such as ``{"method": "moco", ...}``."""
    with _hydra(config_dirs):
        try:
            config = compose(config_name, overrides=list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as fault:
            together = str(fault).splitlines()[0]
            raise InputError(_report(_faults_of_overrides(config_name, overrides, together))) from None
    choices = {key: str(value) for key, value in config.hydra.runtime.choices.items() if not key.startswith("hydra/")}
    with flag_override(config, ["struct", "readonly"], False):
        del config["hydra"]
    faults = check_targets(config, provided=provided, settings=settings) or _check_settings(config, settings)
    if faults:
        raise InputError(_report(faults))
    return config, choices


def sweep_dir(config_name: str, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> str:
    """The folder of a sweep with these overrides, its time being now."""
    with _hydra(config_dirs):
        return str(compose(config_name, overrides=list(overrides), return_hydra_config=True).hydra.sweep.dir)


def _report(faults: Sequence[str]) -> str:
    heading = "1 fault in the configuration:" if len(faults) == 1 else f"{len(faults)} faults in the configuration:"
    return "\n".join([heading, *(f"  {fault}" for fault in faults)])


def _faults_of_overrides(config_name: str, overrides: Sequence[str], together: str) -> list[str]:
    """A line for each override that doesn't compose; ``together`` is what Hydra says of all of them."""
    try:
        compose(config_name, overrides=[])
    except (HydraException, OmegaConfBaseException) as fault:
        return [f"{config_name}.yaml itself: {str(fault).splitlines()[0]}"]
    accepted: list[str] = []
    faults = []
    # Group choices first: a key may exist only in the chosen companion.
    for override in sorted(overrides, key=lambda text: not _chooses_a_group(text)):
        try:
            compose(config_name, overrides=[*accepted, override])
            accepted.append(override)
        except (HydraException, OmegaConfBaseException) as fault:
            faults.append(_explain(config_name, accepted, override, fault))
    # Each may compose when the others came before it; as they were given they don't.
    return faults or [together]


def _chooses_a_group(override: str) -> bool:
    group = override.split("=")[0].lstrip("+~").split("@")[0]
    return (conf_dir() / group).is_dir()


def _explain(config_name: str, accepted: Sequence[str], override: str, fault: Exception) -> str:
    """One line: what is wrong with an override, and the nearest names."""
    try:
        parsed: Override = OverridesParser.create().parse_overrides([override])[0]
    except HydraException:
        return f"{override}: is not of the form key=value (quote values with spaces or special signs)"
    key = parsed.key_or_group
    group = conf_dir() / key
    if group.is_dir():
        options = group_options(key)
        value = str(parsed.value())
        if value in options:
            return f"{override}: {str(fault).splitlines()[0]}"
        return f"{override}: there is no {key}={value}{_nearest(value, options)}; there are: {', '.join(options)}"
    config = compose(config_name, overrides=list(accepted))
    names = [
        *_dotted_names(OmegaConf.to_container(config)),
        *(folder.name for folder in conf_dir().iterdir() if folder.is_dir()),
    ]
    if key not in names:
        return f"{override}: there is no key {key!r}{_nearest(key, names)}"
    return f"{override}: {str(fault).splitlines()[0]}"


def group_options(group: str) -> list[str]:
    """Names of the YAML files of a config group, those of ``--config-dir`` too."""
    folders = [conf_dir(), *map(Path, _extra_config_dirs)]
    files = {file for folder in folders for file in (folder / group).glob("*.yaml")}
    return sorted({file.stem for file in files if not file.stem.startswith("_")})


def _dotted_names(node: Any, prefix: str = "") -> Iterator[str]:
    for key, child in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _dotted_names(child, f"{prefix}{key}.")


def _nearest(name: str, names: Collection[str]) -> str:
    found = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def check_targets(config: DictConfig, *, provided: Mapping[str, Collection[str]], settings: type = object) -> list[str]:
    """Faults of every node that builds an object: unknown target, unknown or missing key, value of another type."""
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as fault:
        return [str(fault).splitlines()[0]]
    own = typing.get_type_hints(settings)
    faults: list[str] = []
    for path, node in _target_nodes(plain):
        arguments = {key: value for key, value in node.items() if key not in _own_keys(own.get(path))}
        faults += _check_node(path, arguments, provided.get(path, ()))
    faults += [f"{path}: must be given ({path}=…)" for path in sorted(OmegaConf.missing_keys(config))]
    return faults


def _check_settings(config: DictConfig, settings: type, prefix: str = "") -> list[str]:
    faults = []
    for key, hint in typing.get_type_hints(settings, include_extras=True).items():
        if _own_keys(hint):
            faults += _check_settings(config[key], hint, prefix=f"{key}.")
        elif problem := _wrong_type(config[key], hint):
            faults.append(f"{prefix}{key}={config[key]!r}: {problem}")
    return faults


def _own_keys(hint: Any) -> Collection[str]:
    """Keys of a class of settings; none of any other type."""
    return typing.get_type_hints(hint).keys() if inspect.isclass(hint) else ()


def _target_nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, child in node.items():
            yield from _target_nodes(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _target_nodes(child, f"{path}[{index}]")


def _check_node(path: str, node: dict[str, Any], provided: Collection[str]) -> list[str]:
    try:
        target = locate(node["_target_"])
    except InputError as fault:
        return [f"{path}: {fault}"]
    keys = [key for key in node if key not in _RESERVED]
    signature = inspect.signature(target)
    free = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    names = [name for name, p in signature.parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    faults = [
        f"{path}.{key}: {node['_target_']} has no argument {key!r}{_nearest(key, names)}"
        for key in keys
        if key not in names and not free
    ]
    if not node.get("_partial_"):
        given = {*keys, *provided}
        faults += [
            f"{path}.{name}: {node['_target_']} needs it"
            for name, parameter in signature.parameters.items()
            if parameter.default is parameter.empty and name in names and name not in given
        ]
    hints = _hints(target)
    faults += [
        f"{path}.{key}={node[key]!r}: {problem}"
        for key in keys
        if key in hints and (problem := _wrong_type(node[key], hints[key]))
    ]
    return faults


def locate(target: str) -> Callable[..., Any]:
    """The class or function of a dotted name.

    Raises:
        InputError: names what of it does not exist, and the nearest name that does.
    """
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as fault:
        raise InputError(f"_target_ {target!r} cannot be imported ({fault})") from None
    found = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"_target_ {target!r}: {module_name} has no {name!r}{_nearest(name, dir(module))}")
    return typing.cast(Callable[..., Any], found)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):
        return {}


@functools.lru_cache(maxsize=256)
def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def _wrong_type(value: Any, hint: Any) -> str | None:
    """What is wrong with a plain value; nodes that build objects are checked on their own."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
        return None
    try:
        adapter = _adapter(hint)
        # Lax validation turns "0.1" into 0.1, but the object would get the text.
        if adapter is not None and isinstance(adapter.validate_python(value), int | float) and isinstance(value, str):
            return "is text where a number is needed"
    except ValidationError as fault:
        return fault.errors()[0]["msg"]
    except TypeError:  # a hint that cannot be hashed or validated says nothing about the value
        return None
    return None


def build(node: DictConfig | dict[str, Any], **objects: Any) -> Any:
    """Builds a node's object, with further arguments that are objects already.

    ``objects`` bypass OmegaConf, which would copy them.

    Raises:
        InputError: the class refuses a value.
    """
    try:
        make = instantiate(node, _partial_=True, _convert_="all")
        if isinstance(node, Mapping) and node.get("_partial_") and not objects:
            return make
        return make(**objects)
    except InputError:
        raise
    except (InstantiationException, MisconfigurationException, TypeError, ValueError) as fault:
        cause = fault.__cause__ or fault
        raise InputError(f"{node['_target_']} refuses its arguments: {str(cause).splitlines()[0]}") from fault


def check_trusted(config: Mapping[str, Any], *, packages: Sequence[str] = ()) -> None:
    """Refuses a config from a file if it names a class outside the packages that are trusted.

    Raises:
        InputError: names the class and how to allow its package.
    """
    allowed = (*TRUSTED_PACKAGES, *packages)
    for path, node in _target_nodes(config):
        target = str(node["_target_"])
        # Where it is defined counts, not where it was imported to: a module of ours also holds what it uses.
        found = locate(target) if any(target.startswith(f"{package}.") for package in allowed) else None
        home = f"{getattr(found, '__module__', '')}."
        building = inspect.isclass(found) or home == "ssl_video.data.sources."
        if not building or not any(home.startswith(f"{package}.") for package in allowed):
            raise InputError(
                f"The checkpoint's config asks for {path}: {target}, which is in none of the trusted packages "
                f"{list(allowed)}; if you trust it, add trusted_packages=[{target.split('.')[0]}]."
            )


def plain(config: DictConfig | ListConfig) -> Any:
    """A config as dictionaries, lists, numbers and strings, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a multirun: every combination of the choices that overrides list."""
    jobs: list[list[str]] = [[]]
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            choices = [override.input_line or ""]
        jobs = [[*job, choice] for job in jobs for choice in choices]
    return jobs
