"""Models by name: the package's ``model-index.yml``."""

import difflib
from pathlib import Path

from mmssm.utils import ConfigError

# mim looks in .mim; in a checkout it is a link to the repository's own file.
INDEX = (Path(__file__).parents[1] / '.mim' / 'model-index.yml').resolve()


def register_model_index() -> None:
    """Register mmssm's models with mmpretrain, if not done yet.

    Afterwards ``mmpretrain.get_model(name, pretrained=True)`` and
    ``mmpretrain.list_models`` know the names in ``model-index.yml``.

    Raises:
        ConfigError: The index is missing from the package.
    """
    if not INDEX.is_file():
        raise ConfigError(
            f'cannot find models by name: {INDEX} does not exist; install '
            'mmssm again, or give the path of a config'
        )
    from mmpretrain.apis import ModelHub
    from modelindex.load_model_index import load

    # mmpretrain raises an error for a name that it already knows.
    if not all(ModelHub.has(m.name.lower()) for m in load(str(INDEX)).models):
        ModelHub.register_model_index(INDEX, config_prefix=INDEX.parent)


def find_model(name: str) -> tuple[str, str | None]:
    """Look up a model's config and weights by its name.

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
