"""Configs, metafiles and READMEs tell of the same models."""

import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from modelindex.load_model_index import load as load_model_index

ROOT = Path(__file__).parents[2]
INDEX = ROOT / 'model-index.yml'
METAFILES = [
    ROOT / path for path in yaml.safe_load(INDEX.read_text())['Import']
]
FAMILIES = [path.parent for path in METAFILES]
CONFIGS = sorted(path for family in FAMILIES for path in family.glob('*.py'))
# Another config's model, evaluated at another size, or a model that serves to
# make one: without published figures.
EVALUATION = [path for path in CONFIGS if re.search(r'-\d+px$', path.stem)]
SEARCH = [path for path in CONFIGS if re.search(r'-search_', path.stem)]
# An old name, which mmengine reads as the new one.
RENAMED = [path for path in CONFIGS if '_deprecation_' in path.read_text()]
OTHERS = EVALUATION + SEARCH + RENAMED
MODELS = [path for path in CONFIGS if path not in OTHERS]
LINK = re.compile(r'\[(?:config|original)\]\(([^)]+)\)')
# A file, a page that leads to one, or none.
WEIGHTS = re.compile(
    r'\[original\]\((https://\S+\.(?:pth|ckpt))\)'
    r'|\[Google Drive\]\((https://drive\.google\.com/file/d/\S+)\)'
    r'|\[Hugging Face\]\((https://huggingface\.co/\S+)\)'
    r'|(not released)'
)


def entries(metafile):
    return yaml.safe_load(metafile.read_text())['Models']


def readme_rows(family):
    """The result tables' rows by config name: (cells, links to weights)."""
    rows = {}
    for line in (family / 'README.md').read_text().splitlines():
        links = LINK.findall(line)
        if line.startswith('|') and links:
            config, *weights = links
            cells = [
                c.strip().strip('¹²³') for c in line.strip('|').split('|')
            ]
            rows[Path(config).stem] = (cells, weights)
    return rows


def published(entry):
    """An entry's figures in the order of the README's columns."""
    metadata = entry['Metadata']
    metrics = [m for r in entry['Results'] for m in r['Metrics'].values()]
    return [metadata['Parameters'] / 1e6, metadata['FLOPs'] / 1e9, *metrics]


def test_every_family_is_in_the_index():
    with_metafile = {p.parent for p in ROOT.glob('configs/*/metafile.yml')}
    assert with_metafile == set(FAMILIES)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_parses(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    assert cfg.custom_imports == dict(
        imports=['mmssm'], allow_failed_imports=False
    )
    arch = cfg.model.backbone.arch
    assert path in SEARCH if isinstance(arch, dict) else arch in path.stem
    assert cfg.default_scope in ('mmdet', 'mmseg', 'mmpretrain')


@pytest.mark.parametrize('metafile', METAFILES, ids=lambda p: p.parent.name)
def test_metafile_lists_every_config_once(metafile):
    listed = [entry['Config'] for entry in entries(metafile)]
    existing = [
        str(path.relative_to(ROOT))
        for path in metafile.parent.glob('*.py')
        if path in MODELS
    ]
    assert sorted(listed) == sorted(existing)
    for entry in entries(metafile):
        assert entry['Name'] == Path(entry['Config']).stem


@pytest.mark.parametrize('family', FAMILIES, ids=lambda path: path.name)
def test_readme_and_metafile_agree(family):
    rows = readme_rows(family)
    models = entries(family / 'metafile.yml')
    assert sorted(rows) == sorted(entry['Name'] for entry in models)
    for entry in models:
        cells, weights = rows[entry['Name']]
        assert weights == ([entry['Weights']] if 'Weights' in entry else [])
        arch, *figures = cells[: len(published(entry)) + 1]
        arch = arch.strip('`')
        assert re.search(f'[-_]{arch}(-in1k-pre)?_', f'_{entry["Name"]}')
        for shown, value in zip(figures, published(entry)):
            decimals = len(shown.partition('.')[2])
            assert float(shown) == round(value, decimals), entry['Name']


@pytest.mark.parametrize('family', FAMILIES, ids=lambda path: path.name)
def test_readme_tells_each_models_weights(family):
    weights = [
        WEIGHTS.match(row[-1]) for row, _ in readme_rows(family).values()
    ]
    links = [m[1] or m[2] or m[3] for m in weights if not m[4]]
    assert len(set(links)) == len(links)
    # Its authors released nothing.
    assert bool(links) == (family.name != 'fractal_mamba')


@pytest.mark.parametrize('path', EVALUATION, ids=lambda path: path.stem)
def test_evaluation_config_belongs_to_a_model(path):
    original = path.with_name(re.sub(r'-\d+px$', '.py', path.stem))
    assert original in CONFIGS
    assert f']({path.name})' in (path.parent / 'README.md').read_text()


@pytest.mark.parametrize('path', SEARCH, ids=lambda path: path.stem)
def test_readme_tells_of_a_search(path):
    assert f']({path.name})' in (path.parent / 'README.md').read_text()


@pytest.mark.parametrize('family', FAMILIES, ids=lambda path: path.name)
def test_readme_links_to_files_that_exist(family):
    links = re.findall(
        r'\]\((?!https?:|#)([^)]+)\)', (family / 'README.md').read_text()
    )
    assert links
    for link in links:
        assert (family / link.partition('#')[0]).is_file(), link


def test_index_loads_as_mmpretrain_loads_it():
    index = load_model_index(str(INDEX))
    index.build_models_with_collections()
    names = {model.name for model in index.models}
    assert names == {path.stem for path in MODELS}
