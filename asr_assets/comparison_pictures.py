"""Pictures of a comparison: which of two model versions makes fewer errors, where, and how sure that is.

A is blue and B is orange. Each is None when there is nothing to draw. Values of conditions are other people's
text, in any script.
"""

import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias
from warnings import catch_warnings
from xml.etree import ElementTree

import numpy as np
from dagster import MarkdownMetadataValue

from asr_assets.drawing import printable
from asr_assets.pictures import BLUE, DPI, GREY, ORANGE, WIDTH_IN, inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row: TypeAlias = Mapping[str, Any]
"""Of the table ``comparison``, by name of column."""
Bins: TypeAlias = Mapping[str, Sequence[float]]
"""``words``, ``probability`` and ``right``: sums by tenths of probability, as in ``comparison_by_video``."""

ORIGINAL = "original"
_SIDES = (("A", BLUE, "o"), ("B", ORANGE, "s"))
_LEVEL = re.compile(r"(?P<kind>.+)_(?P<level>-?\d+(?:\.\d+)?)(?P<unit>[a-z]*)")
_UNITS = {"db": "dB", "k": "kbit/s"}
_LEGEND: dict[str, Any] = {"frameon": False, "labelcolor": GREY, "fontsize": 8}
_NUMBER = re.compile(r"(?P<before>.*?)(?P<number>-?\d+(?:\.\d+)?)")


def differences(rows: Sequence[Row]) -> "Figure | None":
    """WER of B less that of A with its interval, over all videos and under each condition, in points."""
    shown = largest([row for row in rows if row["wer_difference"] is not None], 60)
    if not shown:
        return None
    lines: list[tuple[str, Row | None]] = []
    for condition, group in groupby(shown, lambda row: str(row["condition"])):
        if condition != "all":
            lines.append((condition, None))
        lines.extend(("all videos" if condition == "all" else str(row["value"]), row) for row in group)
    figure = _figure(WIDTH_IN, 0.9 + 0.2 * len(lines))
    axes = _styled(figure.subplots(), "← B makes fewer errors | points of WER, B less A | A does →")
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(lines)), [_name(name) for name, _ in lines])
    for height, ((_, row), label) in enumerate(zip(lines, axes.get_yticklabels(), strict=True)):
        if row is None:
            label.set_fontweight("bold")
        else:
            _interval(axes, height, row)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    return figure


def _interval(axes: "Axes", height: float, row: Row) -> None:
    """Coloured as the model that makes fewer errors, where that can be shown."""
    low, high = row["wer_difference_low"], row["wer_difference_high"]
    colour = GREY if low is None or low <= 0 <= high else ORANGE if high < 0 else BLUE
    if low is not None:
        axes.plot([100 * low, 100 * high], [height, height], color=colour, linewidth=1.8)
    marker, size = ("D", 7) if row["condition"] == "all" else ("o", 5)
    inside = "none" if low is None else colour  # so few videos are no evidence
    axes.plot([100 * row["wer_difference"]], [height], marker, color=colour, ms=size, mfc=inside)
    videos, place = f"{row['referenced']} video{'s' * (row['referenced'] != 1)}", axes.get_yaxis_transform()
    axes.text(1.01, height, videos, transform=place, color=GREY, fontsize=8, va="center_baseline")


def wer_by_condition(rows: Sequence[Row]) -> "Figure | None":
    """WER of both over what recordings went through (condition ``condition``): a plot for each kind."""
    known = [row for row in rows if row["condition"] == "condition" and row["wer_a"] is not None]
    rates = {str(row["value"]): (100 * row["wer_a"], 100 * row["wer_b"]) for row in known}
    first = [(ORIGINAL, rates.pop(ORIGINAL))] if ORIGINAL in rates else []
    kinds = defaultdict(list)
    for value in sorted(rates, key=_by_number, reverse=True):  # the higher a level, the better
        level = _LEVEL.fullmatch(value)
        title = f"{level['kind']}, {_UNITS.get(level['unit'], level['unit'])}" if level else ""
        kinds[title].append((level["level"] if level else value, rates[value]))
    if not kinds:
        return None
    panels = sorted(kinds.items(), key=lambda kind: (not kind[0], -len(kind[1]), kind[0]))
    down = -(-len(panels) // 3)
    figure = _figure(WIDTH_IN, 0.4 + 1.9 * down)
    every = list(figure.subplots(down, min(3, len(panels)), sharey=True, squeeze=False).flat)
    for axes, (title, points) in zip(every, panels, strict=False):
        names, of_both = zip(*first, *points, strict=True)
        for (side, colour, marker), of_one in zip(_SIDES, zip(*of_both, strict=True), strict=True):
            axes.plot(of_one, marker + ("-" if title else ""), color=colour, label=side, markersize=4)
        turned = 0 if len("".join(names)) < 26 else 25 if len(names) < 7 else 90
        _styled(axes).set_xticks(range(len(names)), [_name(name) for name in names], rotation=turned)
        axes.set_title(_name(title.removesuffix(", ") or "others"), loc="left", color=GREY, fontsize=9)
    every[0].set_ylim(bottom=0)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    figure.supylabel("WER, %", color=GREY, fontsize=9)
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper right", **_LEGEND, ncols=2)
    return figure


def calibration(confidence_a: Bins | None, confidence_b: Bins | None) -> "Figure | None":
    """How often words of a probability are right."""
    names, none = ("words", "probability", "right"), {"words": [0], "probability": [0], "right": [0]}
    bins = [np.array([(one or none)[name] for name in names], float) for one in (confidence_a, confidence_b)]
    most = max(words.max() for words, *_ in bins)
    if not most:
        return None
    figure = _figure(WIDTH_IN / 2, 3.6)
    axes = _styled(figure.subplots(), "mean probability of words", "share of them that is right")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    for (side, colour, marker), (words, sure, right) in zip(_SIDES, bins, strict=True):
        n, x, y = words[words > 0], *(sums[words > 0] / words[words > 0] for sums in (sure, right))
        axes.plot(x, y, f"{marker}-", color=colour, linewidth=0.8, markersize=3, label=side)
        axes.scatter(x, y, s=12 + 160 * n / most, marker=marker, color=colour, alpha=0.6, linewidths=0)
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
    axes.legend(loc="upper left", **_LEGEND)
    return figure


def start_errors(ms_a: Sequence[float], ms_b: Sequence[float] | None = None) -> "Figure | None":
    """Shares of words whose start is at most so far off; of one list: so far from the other model's."""
    lists = [("between A and B", GREY, ms_a)] if ms_b is None else [("A", BLUE, ms_a), ("B", ORANGE, ms_b)]
    known = [(label, colour, np.abs(np.asarray(ms, float))) for label, colour, ms in lists if len(ms)]
    if not known:
        return None
    figure, shares = _figure(WIDTH_IN / 2, 3.6), np.linspace(0, 1, 401)
    what = "between their starts, ms" if ms_b is None else "start error, ms"
    axes = _styled(figure.subplots(), what, "words that are at most so far off, %")
    for label, colour, ms in known:
        axes.plot(np.quantile(ms, shares), 100 * shares, color=colour, label=label)
    # Few words are very far off, and would leave no room for the others.
    axes.set(xlim=(0, max(50.0, *(float(np.quantile(ms, 0.97)) for *_, ms in known))), ylim=(0, 101))
    axes.legend(loc="lower right", **_LEGEND)
    return figure


def largest(rows: Sequence[Row], n: int) -> list[Row]:
    """The rows with the most videos: all videos on top, the others by condition, classes in their order."""
    most = sorted(rows, key=lambda row: (row["condition"] != "all", -row["videos"]))[:n]
    most.sort(key=lambda row: (row["condition"] != "all", row["condition"], _by_number(row["value"])))
    return most


def _by_number(value: str) -> tuple[str, float, int, str]:
    """``under 10 dB`` comes before ``10 to 20 dB``, and ``noise_5db`` before ``noise_10db``."""
    side = value.startswith("over ") - value.startswith("under ")
    found = _NUMBER.match(value)
    before, number = (found["before"], float(found["number"])) if found else (value, 0.0)
    return "" if side or value == ORIGINAL else before, number, side, value


def as_markdown(figure: "Figure", what: str) -> MarkdownMetadataValue:
    """For Dagster's UI."""
    with catch_warnings(action="ignore", category=UserWarning):  # a letter that the font lacks is a box
        return inline(figure, what)


def as_svg(figure: "Figure", what: str) -> str:
    """For an HTML page: the same bytes for the same picture, and no id that another one there has too."""
    import matplotlib as mpl

    file, nothing = io.BytesIO(), ("Creator", "Date", "Format", "Type")
    settings = mpl.rc_context({"svg.hashsalt": what, "svg.fonttype": "none"})
    with settings, catch_warnings(action="ignore", category=UserWarning):  # the browser has other fonts
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(nothing))
    root = ElementTree.fromstring(file.getvalue())  # noqa: S314 matplotlib has just written it
    referred = set(re.findall(r"#(\w+)", file.getvalue().decode()))
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        named = {name.rpartition("}")[2]: value for name, value in node.attrib.items()}
        # Salted with what is shown; the other ids number the parts, from 1 in each picture.
        node.attrib = {name: value for name, value in named.items() if name != "id" or value in referred}
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": what}
    return ElementTree.tostring(root, encoding="unicode")


def _figure(width_in: float, height_in: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")


def _styled(axes: "Axes", across: str = "", up: str = "") -> "Axes":
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    axes.tick_params(colors=GREY, labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(across, color=GREY, fontsize=9)
    axes.set_ylabel(up, color=GREY, fontsize=9)
    return axes


def _name(text: str) -> str:
    """Short, of what XML can hold, and with dollars that mean no formula."""
    return printable(text if len(text) <= 32 else f"{text[:31]}…").replace("$", r"\$")
