"""Inputs on the device that a test runs on."""

import torch


def move(inputs, device):
    """Inputs by name as leaves of their own, on a device.

    What is no tensor, or on 'meta', stays as it is.
    """
    return {
        name: value.detach().to(device).requires_grad_(value.requires_grad)
        if torch.is_tensor(value) and not value.is_meta
        else value
        for name, value in inputs.items()
    }
