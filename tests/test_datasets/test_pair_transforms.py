import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample
from PIL import Image

from mmssm.datasets import LoadChangeLabel, LoadImagePair

SIZE = (40, 60)
META_KEYS = ('img_path', 'img_path_after', 'flip', 'ori_shape')


def draw(size=SIZE, seed=0):
    """Smooth pictures before and after (RGB) and a label, (H, W) 0/255."""
    rng = np.random.default_rng(seed)
    before, after, label = (
        cv2.resize(
            rng.integers(0, 256, (4, 6, 3), np.uint8),
            size[::-1],
            interpolation=cv2.INTER_CUBIC,
        )
        for _ in range(3)
    )
    return before, after, np.where(label[..., 0] > 128, 255, 0).astype('u1')


@pytest.fixture
def save(tmp_path):
    """Write the three files and return a sample that names them."""

    def save_all(before, after, label, **more):
        sample = dict(more)
        for key, image in dict(
            img_path=before, img_path_after=after, seg_map_path=label
        ).items():
            sample[key] = str(tmp_path / f'{key}.png')
            if image.ndim == 3 and image.shape[2] == 3:
                image = image[..., ::-1]
            assert cv2.imwrite(sample[key], image)
        return sample

    return save_all


def load(sample):
    return LoadChangeLabel()(LoadImagePair()(sample))


def message_of(sample):
    with pytest.raises(ValueError) as caught:
        load(sample)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_pair_is_one_image_of_six_channels(save):
    before, after, label = draw()
    results = load(save(before, after, label))
    assert results['img'].dtype == np.uint8
    assert np.array_equal(results['img'][..., :3], before)
    assert np.array_equal(results['img'][..., 3:], after)
    assert results['img_shape'] == results['ori_shape'] == SIZE
    assert np.array_equal(results['gt_seg_map'], label // 255)
    assert results['gt_seg_map'].dtype == np.uint8
    assert results['seg_fields'] == ['gt_seg_map']


def test_tile_is_cut_from_all_three(save):
    before, after, label = draw()
    sample = save(before, after, label, tile=(8, 20, 16, 24))
    results = load(sample)
    window = np.s_[8:24, 20:44]
    assert np.array_equal(results['img'][..., :3], before[window])
    assert np.array_equal(results['img'][..., 3:], after[window])
    assert np.array_equal(results['gt_seg_map'], label[window] // 255)
    assert results['img_shape'] == results['ori_shape'] == (16, 24)
    assert results['pair_shape'] == SIZE
    # A tile must not keep the whole pair in memory.
    assert results['img'].base is None


def test_grey_images_are_read_as_color(save):
    before, after, label = draw()
    results = load(save(before[..., 0], after, label))
    gray = np.repeat(before[..., :1], 3, axis=2)
    assert np.array_equal(results['img'][..., :3], gray)


def test_a_cameras_turn_is_left_to_labels_and_images_alike(save, tmp_path):
    """Labels are stored as they lie on the file's own pixels."""
    before, after, label = draw()
    sample = save(before, after, label)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees
    for key, image in (('img_path', before), ('img_path_after', after)):
        sample[key] = str(tmp_path / f'{key}.jpg')
        Image.fromarray(image).save(sample[key], exif=turned, quality=95)
    loaded = load(sample)
    assert loaded['img'].shape == (*SIZE, 6)
    assert np.abs(loaded['img'][..., :3].astype(int) - before).mean() < 3


def test_images_of_two_sizes_are_refused(save):
    before, after, label = draw()
    sample = save(before, after[:, :-1], label)
    assert message_of(sample) == (
        f'{sample["img_path"]} has 40 x 60 pixels, but '
        f'{sample["img_path_after"]} has 40 x 59; the images of a pair must '
        'have one size'
    )


def test_label_of_another_size_is_refused(save):
    before, after, label = draw()
    sample = save(before, after, label[1:], tile=(0, 0, 16, 16))
    expected = f'{sample["seg_map_path"]} has 39 x 60 pixels, but '
    assert message_of(sample).startswith(expected)


def test_label_of_zeros_and_ones_is_refused_with_advice(save):
    before, after, label = draw()
    text = message_of(save(before, after, label // 255))
    assert 'has the value 1 in ' in text and 'multiply it by 255' in text


@pytest.mark.parametrize('mode', ['P', 'RGB', 'RGBA', 'LA', '1'])
def test_a_grey_label_may_be_stored_in_color(save, mode):
    before, after, label = draw()
    sample = save(before, after, label)
    picture = Image.fromarray(label)
    if mode == 'P':
        picture = Image.fromarray(label // 255)
        picture.putpalette([0] * 3 + [255] * 3)
    else:
        picture = picture.convert(mode)
    picture.save(sample['seg_map_path'])
    assert (load(sample)['gt_seg_map'] == label // 255).all()


def test_16_bits_are_read_if_they_are_used(save):
    before, after, label = draw()
    wide = before.astype(np.uint16) << 8
    loaded = load(save(wide, after, label))
    assert (loaded['img'][..., :3] == before).all()
    sample = save(wide >> 4, after, label)
    text = message_of(sample)
    assert text.startswith(f'{sample["img_path"]}: it has 16 bits a channel')
    assert f'no value above {(wide >> 4).max()}, ' in text
    black = load(save(np.zeros_like(wide), after, label))
    assert (black['img'][..., :3] == 0).all()


@pytest.mark.parametrize('value', [1, 128, 254])
def test_label_with_another_value_is_refused(save, value):
    before, after, label = draw()
    label[30:32, 50] = value
    # Outside of the tile it is wrong, too.
    sample = save(before, after, label, tile=(0, 0, 16, 16))
    expected = f'{sample["seg_map_path"]} has the value {value} in 2 pixels; '
    assert message_of(sample).startswith(expected)


def test_label_in_color_is_refused(save):
    before, after, label = draw()
    sample = save(before, after, before)
    expected = f'{sample["seg_map_path"]} has colors; a label is gray, '
    assert message_of(sample).startswith(expected)


@pytest.mark.parametrize('key', ['img_path', 'img_path_after', 'seg_map_path'])
@pytest.mark.parametrize('content', [b'', b'no image'])
def test_file_that_is_no_image_is_named(save, key, content):
    sample = save(*draw())
    with open(sample[key], 'wb') as file:
        file.write(content)
    assert message_of(sample) == f'{sample[key]} is no image that can be read'


def run(sample, *steps):
    with DefaultScope.overwrite_default_scope('mmseg'):
        pipeline = Compose([LoadImagePair(), LoadChangeLabel(), *steps])
        return pipeline(dict(sample))


def alone(image, label, *steps):
    """What the steps make of one image of three channels."""
    results = dict(
        img=image,
        img_shape=image.shape[:2],
        gt_seg_map=label // 255,
        seg_fields=['gt_seg_map'],
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return Compose(list(steps))(results)


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Resize', scale=(90, 70)),
        dict(type='Resize', scale=(33, 99), keep_ratio=True),
        dict(type='RandomResize', scale=(60, 40), ratio_range=(0.5, 2.0)),
        dict(type='RandomFlip', prob=1.0, direction='horizontal'),
        dict(type='RandomFlip', prob=1.0, direction='vertical'),
        dict(type='RandomFlip', prob=1.0, direction='diagonal'),
        dict(type='RandomCrop', crop_size=(24, 24), cat_max_ratio=0.75),
        dict(type='RandomRotFlip', rotate_prob=0.0, flip_prob=1.0),
    ],
)
def test_transforms_treat_both_images_alike(save, step):
    before, after, label = draw()
    sample = save(before, after, label)
    for seed in range(4):
        whole = []
        for function in (
            lambda: run(sample, step),
            lambda: alone(before, label, step),
            lambda: alone(after, label, step),
        ):
            np.random.seed(seed)
            whole.append(function())
        pair, first, second = whole
        assert np.array_equal(pair['img'][..., :3], first['img'])
        assert np.array_equal(pair['img'][..., 3:], second['img'])
        assert np.array_equal(pair['gt_seg_map'], first['gt_seg_map'])
        assert pair['img'].shape[:2] == pair['gt_seg_map'].shape


@pytest.mark.parametrize(
    'step',
    [
        dict(type='Resize', scale=(35, 25), interpolation='area'),
        dict(type='Pad', size=(64, 64)),
    ],
)
def test_transforms_that_take_four_channels_at_most(save, step):
    """What LoadImagePair's documentation excludes; when it works, say so."""
    before, after, label = draw()
    alone(before, label, step)
    with pytest.raises(cv2.error):
        run(save(before, after, label), step)


def test_pair_is_packed_and_normalized(save):
    before, after, label = draw()
    sample = save(before, after, label)
    packed = run(sample, dict(type='PackSegInputs', meta_keys=META_KEYS))
    assert packed['inputs'].shape == (6, *SIZE)
    meta = packed['data_samples'].metainfo
    assert meta['img_path_after'] == sample['img_path_after']
    mean, std = [10, 20, 30, 40, 50, 60], [1, 2, 3, 4, 5, 6]
    process = SegDataPreProcessor(mean=mean, std=std, size=(48, 64))
    batch = dict(inputs=[packed['inputs']], data_samples=[SegDataSample()])
    batch['data_samples'][0].gt_sem_seg = packed['data_samples'].gt_sem_seg
    inputs = process(batch, training=True)['inputs'][0]
    both = np.concatenate([before, after], axis=2).astype(np.float32)
    expected = torch.from_numpy((both - mean) / std).permute(2, 0, 1).float()
    assert inputs.shape == (6, 48, 64)
    assert torch.allclose(inputs[:, :40, :60], expected)


def test_views_for_test_time_augmentation(save):
    before, after, label = draw()
    views = run(
        save(before, after, label),
        dict(
            type='TestTimeAug',
            transforms=[
                [
                    dict(type='Resize', scale_factor=factor, keep_ratio=True)
                    for factor in (1.0, 1.5)
                ],
                [
                    dict(type='RandomFlip', prob=float(flip))
                    for flip in (False, True)
                ],
                [dict(type='PackSegInputs', meta_keys=META_KEYS)],
            ],
        ),
    )
    sizes = [view.shape for view in views['inputs']]
    assert sizes == 2 * [(6, 40, 60)] + 2 * [(6, 60, 90)]
    for plain, mirrored in (views['inputs'][:2], views['inputs'][2:]):
        assert mirrored.equal(plain.flip(2))
    flips = [sample.metainfo['flip'] for sample in views['data_samples']]
    assert flips == [False, True] * 2
