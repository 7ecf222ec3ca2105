"""A picture of measured times."""

from pathlib import Path

# Unlike pyplot, this needs no display and keeps no state.
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from mmssm.analysis.benchmark.report import Report

from .figures import check_figure_path, save_figure


def draw_times(report: Report, path: str | Path) -> None:
    """Draw times: lines over image sizes, or bars for cases without sizes.

    Args:
        report (Report): The report of one benchmark.
        path (str | Path): The picture; its suffix chooses the format.

    Raises:
        ValueError: If the suffix is not a known format.
    """
    check_figure_path(path)
    cases = report.cases
    figure = Figure(figsize=(8, 5), layout='constrained')
    figure.suptitle(f'{report.title}\n{report.machine}', fontsize='small')
    axis = figure.subplots()
    lines = len(cases) > 1 and 'size' in cases[0].facts
    width = 0.8 / len(cases[0].results)
    for number, result in enumerate(cases[0].results):
        points = [
            (place, case.results[number].median * 1e3)
            for place, case in enumerate(cases)
            if case.results[number].median
        ]
        if not points:
            continue
        places, times = zip(*points)
        if lines:
            places = [cases[place].facts['size'] for place in places]
            axis.plot(places, times, marker='o', label=result.name)
        else:
            places = [place + number * width for place in places]
            axis.bar(places, times, width, align='edge', label=result.name)
    if lines:
        axis.set_xscale('log')
        axis.set_xlabel('height and width of the image')
        places = [case.facts['size'] for case in cases]
    else:
        places = [place + 0.4 for place in range(len(cases))]
    axis.set_xticks(places, [case.name for case in cases])
    axis.tick_params('x', which='minor', bottom=False, labelbottom=False)
    axis.set_yscale('log')
    # Write 200, not 2 x 10^2.
    axis.yaxis.set_major_formatter('{x:g}')
    axis.yaxis.set_minor_formatter(LogFormatter())
    axis.set_ylabel('ms')
    axis.grid(alpha=0.3, axis='y', which='both')
    figure.legend(fontsize='small', loc='outside lower center', ncols=2)
    save_figure(figure, path)
