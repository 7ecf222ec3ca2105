"""Loading a backbone as a part of a model: its file must be the model's.

mmengine's loading of files passes over all that does not fit, and the
libraries' inferencers and test tools use it. A wrong file then gives results
of random weights, and no error.

mmssm's loaders of files (:mod:`mmssm.checkpoint.loaders`) put a note into the
metadata of a state dict. mmengine passes them to each module with its tensors.
So only what comes from a file is checked: whoever calls PyTorch's
``load_state_dict`` may leave a backbone out on purpose.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mmengine.logging import print_log
from torch import Tensor

from mmssm.utils import CheckpointError

from .fitting import Fit, compare

if TYPE_CHECKING:
    from .base import SSMBackbone

FILE = 'mmssm_file'  # the note's name in the metadata of a backbone

_ADVICE = (
    'test with a file of this model, or with the config that belongs to the '
    'file; to train from it, set init_cfg of the backbone; for the backbone '
    "alone, call the backbone's load_pretrained()"
)


# Of plain types, which may be saved and loaded again: the file's name, and the
# names of the heads that it has.
FileNote = tuple[str, tuple[str, ...]]


def file_note(name: str, keys: Iterable) -> FileNote:
    """The note on a file that has these keys.

    OpenMMLab's names of heads end so: ``head``, ``decode_head``, ``rpn_head``.
    """
    names = (str(key).removeprefix('module.') for key in keys)
    roots = {n.split('.')[0] for n in names}
    return name, tuple(sorted(r for r in roots if r.endswith('head')))


def fit_part(
    backbone: SSMBackbone,
    file: FileNote,
    state_dict: dict[str, Any],
    prefix: str,
    others: Sequence[str],
) -> None:
    """Fit a file's tensors; refuse a file of another model, or warn.

    A model to be tested was never initialized, so all its weights must come
    from the file. A model to be trained was: then a part is enough.

    Args:
        backbone (SSMBackbone): What is about to be loaded.
        file (FileNote): Where the tensors come from.
        state_dict (dict): The file's tensors under ``prefix``; the fitted
            ones are put in place.
        prefix (str): Where the backbone is in the model.
        others (Sequence[str]): Keys of the file that the modules above the
            backbone do not have.

    Raises:
        CheckpointError: The model is to be tested, and nothing of the file
            fits the backbone or none of the file's heads is in the model.
    """
    given = {
        key[len(prefix) :]: value
        for key, value in state_dict.items()
        if key.startswith(prefix) and isinstance(value, Tensor)
    }
    # A running average of weights (EMA) was copied before they were
    # initialized; it does not learn.
    learns = any(p.requires_grad for p in backbone.parameters())
    to_test = learns and not backbone.has_weights
    if to_test:
        weights = backbone.fit_positions(given)
    else:
        weights = backbone.fit_weights(given)
    fit = compare(backbone.state_dict(), weights)
    name = type(backbone).__name__
    if to_test:
        gives_features = len(backbone.out_indices) == 1 and not fit.missing
        _refuse_other_model(fit, file, name, others, gives_features)
    backbone.has_weights = True
    state_dict.update({prefix + key: weights[key] for key in weights})
    left = fit.missing + fit.reshaped
    if not to_test:
        left = [key for key in left if not backbone._is_optional(key)]
    if left:
        print_log(
            f'{name}: {file[0]} has only {len(fit.taken)} of its '
            f'{len(fit.own)} tensors ({len(fit.missing)} are missing, '
            f'{len(fit.reshaped)} have another shape; first: {left[0]}); the '
            'others stay as they are, random if nothing was loaded before',
            'current',
            logging.WARNING,
        )


def _refuse_other_model(
    fit: Fit,
    file: FileNote,
    backbone: str,
    others: Sequence[str],
    gives_features: bool,
) -> None:
    """Raise if a file is of another model than the one to be tested.

    A classifier without its head gives features, and takes a classifier's
    file.
    """
    path, heads = file
    if fit.share() == 0:
        keys = [*fit.unknown, *fit.reshaped, *others]
        found = f'; it has {keys[0]}, ...' if keys else ''
        raise CheckpointError(
            f'{path} has none of the {len(fit.own)} tensors of the '
            f"model's {backbone}{found}: {_ADVICE}"
        )
    known = set(heads) - {key.split('.')[0] for key in others}
    if known or not heads or (gives_features and heads == ('head',)):
        return
    raise CheckpointError(
        f'{path} is of another model: it has {heads[0]}.*, which '
        f'this one lacks; {len(fit.taken)} of the {len(fit.own)} tensors of '
        f'{backbone} fit, and the rest of the model would keep random values: '
        f'{_ADVICE}'
    )
