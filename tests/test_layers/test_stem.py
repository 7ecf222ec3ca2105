"""Stems against plain formulas; images of any size, or refused."""

import pytest
import torch
import torch.nn.functional as F

from mmssm.layers import (
    ConvStem,
    PatchStem,
    PatchTokens,
    ResidualStem,
    slices,
)

STEMS = [PatchStem, ConvStem, ResidualStem]
SIZES = [(4, 4), (21, 30), (8, 13)]


def stem_and_images(kind, size, device, **options):
    """A float64 stem, its weights far from their initial ones."""
    torch.manual_seed(0)
    stem = kind(3, 8, **options).double().eval()
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return stem.to(device), torch.randn(2, 3, *size).double().to(device)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', STEMS)
def test_a_fourth_of_the_height_and_width(device, kind, size):
    stem, images = stem_and_images(kind, size, device)
    y = stem(images)
    half_up = 0 if kind is PatchStem else 3
    height, width = ((side + half_up) // 4 for side in size)
    assert y.shape == (2, height, width, 8)
    y.square().sum().backward()
    for name, parameter in stem.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize('size', SIZES)
def test_patch_stem_norms_every_patch(device, size):
    stem, images = stem_and_images(PatchStem, size, device)
    got = stem(images)
    weight = stem.conv.weight.flatten(1)
    for row in range(size[0] // 4):
        for column in range(size[1] // 4):
            patch = images[
                :, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4
            ]
            want = F.linear(patch.flatten(1), weight, stem.conv.bias)
            want = stem.norm(want)
            torch.testing.assert_close(got[:, row, column], want)


@pytest.mark.parametrize('size', SIZES)
def test_conv_stem_is_two_convolutions(device, monkeypatch, size):
    stem, images = stem_and_images(ConvStem, size, device)
    x = images
    for conv, norm, act in (
        (stem.conv1, stem.norm1, F.gelu),
        (stem.conv2, stem.norm2, lambda x: x),
    ):
        x = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
        x = act(norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    want = x.permute(0, 2, 3, 1)
    torch.testing.assert_close(stem(images), want)
    monkeypatch.setattr(slices, 'SLICE_BYTES', 1000)
    with torch.no_grad():
        torch.testing.assert_close(stem(images), want)


@pytest.mark.parametrize('size', SIZES)
def test_residual_stem_is_mllas(device, size):
    stem, images = stem_and_images(ResidualStem, size, device)
    first = stem.conv1(images)
    residual = first + stem.conv2[1](stem.conv2[0](first))
    want = stem.conv3[1](stem.conv3[0](residual)).permute(0, 2, 3, 1)
    got = stem(images)
    torch.testing.assert_close(got, want)
    assert got.is_contiguous()
    assert (first >= 0).all()  # a ReLU
    assert stem.conv3[0].conv.weight.shape == (32, 4, 3, 3)


@pytest.mark.parametrize('stride', [8, 4])
@pytest.mark.parametrize('size', [(1, 1), (8, 8), (9, 16), (21, 30)])
def test_patch_tokens_cover_every_pixel(device, size, stride):
    options = dict(patch_size=8, stride=stride)
    stem, images = stem_and_images(PatchTokens, size, device, **options)
    grid = stem.grid(*size)
    got = stem(images)
    assert got.shape == (2, *grid, 8)
    # As many patches as cover the image, and not one more.
    for tokens, side in zip(grid, size):
        covered = (tokens - 1) * stride + 8
        assert covered >= side and (tokens == 1 or covered - stride < side)
    weight = stem.conv.weight.flatten(1)
    padded = F.pad(images, (0, 40, 0, 40))
    for row in range(grid[0]):
        for column in range(grid[1]):
            top, left = row * stride, column * stride
            patch = padded[:, :, top : top + 8, left : left + 8]
            want = F.linear(patch.flatten(1), weight, stem.conv.bias)
            torch.testing.assert_close(got[:, row, column], want)


@pytest.mark.parametrize('kind', [*STEMS, PatchTokens])
def test_what_is_no_image_is_refused(kind):
    options = dict(patch_size=8, stride=8) if kind is PatchTokens else {}
    stem = kind(3, 8, **options)
    with pytest.raises(ValueError, match=r'images must be \(B, channels, H'):
        stem(torch.zeros(3, 64, 64))
    smallest = 1 if kind is PatchTokens else 4
    message = f'is {smallest - 1} x 64 pixels, .* give at least {smallest} x'
    with pytest.raises(ValueError, match=message):
        stem(torch.zeros(1, 3, smallest - 1, 64))
    assert len(stem(torch.zeros(0, 3, 64, 64))) == 0
