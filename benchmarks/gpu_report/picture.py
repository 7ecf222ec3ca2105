"""The times of the routed scan over its byte floor."""

from importlib.util import find_spec
from pathlib import Path

from .page import machine

OURS = 'mmssm'
THEIRS = 'gather, scan (ours), merge'
COLORS = {'float32': 'tab:blue', 'bfloat16': 'tab:orange'}


def draw(content: dict, path: Path) -> None:
    """Draw bars for each stage, a panel for each batch, N and direction.

    Writes nothing where nothing was measured, or matplotlib is missing.
    """
    panels = {}
    for step in content['steps']:
        if not step['name'].startswith('ops-') or not step['result']:
            continue
        for report in step['result']['reports']:
            known = report['settings']
            if known['op'] == 'scan':
                key = known['batch'], known['states'], known['backward']
                panels.setdefault(key, []).append(report)
    if not panels or not find_spec('matplotlib'):
        return
    from matplotlib.figure import Figure

    rows = sorted({key[:2] for key in panels}, key=lambda k: (-k[0], k[1]))
    figure = Figure(figsize=(9, 1 + 2.6 * len(rows)), layout='constrained')
    figure.suptitle(
        'Routed scan: time over that of a copy of as many bytes\n'
        + machine(content)
        + (', small sizes' if content['device'] == 'cpu' else ''),
        fontsize='medium',
    )
    grid = figure.subplots(len(rows), 2, squeeze=False, sharey='row')
    for axes, (batch, states) in zip(grid, rows):
        for axis, backward in zip(axes, (False, True)):
            step = 'forward + backward' if backward else 'forward'
            axis.set_title(
                f'{step}, batch {batch}, N = {states}', fontsize='small'
            )
            _bars(axis, panels.get((batch, states, backward), []))
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside lower center', ncols=2, fontsize='small'
    )
    figure.savefig(path, dpi=120)


def _bars(axis, reports: list[dict]) -> None:
    series = [(r, name) for name in (OURS, THEIRS) for r in reports]
    width = 0.8 / max(1, len(series))
    for number, (report, name) in enumerate(series):
        places, heights = [], []
        for place, case in enumerate(report['cases']):
            for result in case['results']:
                if result['name'] == name and result['median_s']:
                    seconds = list(result['median_s'].values())[-1]
                    facts = case['facts']
                    places.append(place + (number + 0.5) * width - 0.4)
                    heights.append(
                        seconds * facts['bandwidth'] / facts['floor_bytes']
                    )
        dtype = report['settings']['dtype']
        bars = axis.bar(
            places,
            heights,
            width,
            label=f'{name}, {dtype}',
            color=COLORS[dtype],
            alpha=1 if name == OURS else 0.4,
        )
        axis.bar_label(bars, fmt='{:.3g}', fontsize=6)
    if reports:
        names = [c['name'].split('-T ')[-1] for c in reports[0]['cases']]
        axis.set_xticks(range(len(names)), names, fontsize='small')
    axis.set_yscale('log')
    axis.margins(y=0.15)
    axis.yaxis.set_major_formatter('{x:g}')
    axis.axhline(1, color='black', linewidth=0.8)
