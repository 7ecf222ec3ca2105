"""The error a user sees when a checkpoint cannot be used."""


class CheckpointError(RuntimeError):
    """A checkpoint file is missing, damaged, unsafe or of another model.

    The message is one line: what is wrong, what was expected, what to do.
    """
