"""The configs that come with the package, found by name from any folder.

In a checkout they are the folder `configs` beside the package, in an installation they lie inside
it. They import each other as `configs.NAME`, and so may a config of one's own.
"""

import importlib.util
import pathlib
import sys

import tpdiff_jax
from tpdiff_jax.checks import did_you_mean

ALIAS = "configs"
_PACKAGE = pathlib.Path(tpdiff_jax.__file__).resolve().parent


def config_folder() -> pathlib.Path:
    """Return the folder of the configs that come with this package."""
    installed = _PACKAGE / ALIAS
    return installed if installed.is_dir() else _PACKAGE.parent / ALIAS


def config_names() -> list[str]:
    """Return the names that `--config=NAME` takes, in order."""
    return sorted(path.stem for path in config_folder().glob("[a-z]*.py"))


def find_config(given: str) -> pathlib.Path:
    """Return the file that --config names: a shipped config by its name, or a file.

    A shipped name goes before a file of that name, which is `./flow`: what is run is then never
    what merely lies in the current folder.

    Args:
        given: `flow`, or a file such as `configs/mine.py`.

    Raises:
        ValueError: when there is neither.
    """
    names = config_names()
    if given in names:
        offer_configs(is_ours_wanted=True)
        return config_folder() / f"{given}.py"
    path = pathlib.Path(given)
    if path.is_file():
        offer_configs()
        return path
    is_of_checkout = path.suffix == ".py" and path.parts[:-1] in ((), (ALIAS,))
    if is_of_checkout and path.stem in names:
        hint = f"; from any folder --config={path.stem} is the one that comes with the package"
    else:
        hint = f", nor one of those that come with the package: {', '.join(names)}"
        hint += did_you_mean(path.stem.lower(), names)
    raise ValueError(f"--config={given} is not a file{hint}")


def offer_configs(*, is_ours_wanted: bool = False) -> None:
    """Make `from configs import flow` work outside of a checkout.

    Args:
        is_ours_wanted: take ours even where the current folder has another package of that name;
            a config file of somebody else gets theirs.
    """
    folder = config_folder()
    loaded = sys.modules.get(ALIAS)
    if loaded is not None and str(folder) in list(getattr(loaded, "__path__", [])):
        return
    if not is_ours_wanted and (loaded is not None or importlib.util.find_spec(ALIAS) is not None):
        return
    spec = importlib.util.spec_from_file_location(
        ALIAS, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ValueError(f"{folder} holds no configs")
    for name in [name for name in sys.modules if name.startswith(f"{ALIAS}.")]:
        del sys.modules[name]  # of another package
    module = importlib.util.module_from_spec(spec)
    sys.modules[ALIAS] = module
    spec.loader.exec_module(module)
