"""Find a model by its name."""

import difflib

from mmssm.utils import ConfigError
from mmssm.utils.model_index import register_model_index


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
