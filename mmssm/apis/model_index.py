"""Models by name: the package's ``model-index.yml``."""

import difflib
from pathlib import Path

from mmssm.utils import ConfigError

# In .mim, where mim looks; in a checkout a link to the repository's own.
INDEX = (Path(__file__).parents[1] / '.mim' / 'model-index.yml').resolve()


def register_model_index() -> None:
    """Tell mmpretrain of mmssm's models, unless it knows them.

    Afterwards ``mmpretrain.get_model(name, pretrained=True)`` and
    ``mmpretrain.list_models`` know the names in ``model-index.yml``.

    Raises:
        ConfigError: The package has lost its index.
    """
    if not INDEX.is_file():
        raise ConfigError(
            f'models have no names here: {INDEX} does not exist; install '
            'mmssm again, or give the path of a config'
        )
    from mmpretrain.apis import ModelHub
    from modelindex.load_model_index import load

    # It takes a name that it knows for a conflict.
    if not all(ModelHub.has(m.name.lower()) for m in load(str(INDEX)).models):
        ModelHub.register_model_index(INDEX, config_prefix=INDEX.parent)


def find_model(name: str) -> tuple[str, str | None]:
    """Look a model's config and weights up by its name.

    Args:
        name (str): A name in mmssm's model index or mmpretrain's, in upper
            or lower case.

    Returns:
        tuple[str, str | None]: The config file and the address of the
        weights; None if no weights are published.

    Raises:
        ConfigError: No model has the name, or there is no index.
    """
    register_model_index()
    from mmpretrain.apis import ModelHub, list_models

    names = list_models()
    if name.lower() not in names:
        close = difflib.get_close_matches(name.lower(), names)
        hint = f'did you mean {", ".join(close)}?' if close else 'check it'
        raise ConfigError(
            f'{name} is neither a config file nor the name of a model; {hint}'
        )
    model = ModelHub.get(name)
    return model.config.filename, model.weights
