import pytest

from mmssm.apis import find_model, register_model_index
from mmssm.utils import ConfigError
from mmssm.utils import model_index as model_names

NAME = 'vmamba-tiny-s1l8_8xb128_in1k'


def test_mmpretrain_knows_the_models():
    import mmpretrain

    register_model_index()
    register_model_index()  # once is enough, twice does no harm
    assert NAME in mmpretrain.list_models('vmamba')
    model = mmpretrain.get_model(NAME)
    assert type(model.backbone).__name__ == 'VMamba'
    assert model.head.num_classes == 1000


@pytest.mark.parametrize('name', [NAME, NAME.upper()])
def test_config_and_weights(name):
    config, weights = find_model(name)
    assert config.endswith(f'configs/vmamba/{NAME}.py')
    assert weights.startswith('https://') and weights.endswith('.pth')


def test_unknown_name():
    with pytest.raises(ConfigError) as caught:
        find_model('vmamba-tiny-s1l8_8xb128_in2k')
    assert f'did you mean {NAME}' in str(caught.value)
    with pytest.raises(ConfigError, match='neither a config file nor'):
        find_model('xyz')


def test_package_without_its_index(tmp_path, monkeypatch):
    monkeypatch.setattr(model_names, 'INDEX', tmp_path / 'model-index.yml')
    with pytest.raises(ConfigError, match='give the path of a config'):
        find_model(NAME)
