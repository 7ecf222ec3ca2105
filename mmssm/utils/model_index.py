"""The names of models in ``model-index.yml``, made known to libraries."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from .errors import ConfigError
from .imports import when_imported

# mim looks in .mim; in a checkout it is a link to the repository's own file.
INDEX = (Path(__file__).parents[1] / '.mim' / 'model-index.yml').resolve()


def register_model_names() -> None:
    """Let mmpretrain and the inferencers of all libraries know our names.

    Afterwards ``mmpretrain.list_models``, ``get_model`` and
    ``inference_model``, and inferencers such as mmdet's ``DetInferencer`` and
    mmseg's ``MMSegInferencer`` take the names in ``model-index.yml``. No
    library is imported here; each is told when something imports it.
    """
    if INDEX.is_file():
        when_imported('mmpretrain.apis.model', _tell_mmpretrain)
        when_imported('mmengine.infer.infer', _tell_inferencers)


def register_model_index() -> None:
    """Import mmpretrain and see that it knows mmssm's models.

    Raises:
        ConfigError: The index is missing from the package.
    """
    if not INDEX.is_file():
        raise ConfigError(
            f'cannot find models by name: {INDEX} does not exist; install '
            'mmssm again, or give the path of a config'
        )
    import mmpretrain.apis.model

    _tell_mmpretrain(mmpretrain.apis.model)


def _tell_mmpretrain(module: ModuleType) -> None:
    from modelindex.load_model_index import load

    hub = module.ModelHub
    # mmpretrain raises an error for a name that it already knows.
    if not any(
        m.name.lower() in hub._models_dict for m in load(str(INDEX)).models
    ):
        hub.register_model_index(INDEX, config_prefix=INDEX.parent)


def _tell_inferencers(module: ModuleType) -> None:
    """Add mmssm's models to those that mmengine finds in a library."""
    base = module.BaseInferencer
    base._get_models_from_metafile = staticmethod(
        _with_own_models(base._get_models_from_metafile)
    )


def _with_own_models(
    find: Callable[[str], Iterator[dict]],
) -> Callable[[str], Iterator[dict]]:
    def find_all(dir: str) -> Iterator[dict]:
        yield from find(dir)
        for model in find(str(INDEX.parent)):
            # The inferencer joins the library's folder and this path.
            config = str(INDEX.parent / model['Config'])
            yield {'Weights': None, **model, 'Config': config}

    return find_all
