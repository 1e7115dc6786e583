"""The report's pictures: charts as inline SVG, pixels as PNG data URIs. Nothing here touches pyplot or a display.

A chart is drawn in the colours of `COLOURS`, and each becomes a CSS variable with that colour as its fallback, so that a
page can restyle all the charts for light, dark and print, and a chart still reads when it stands alone.
"""

import hashlib
import io
import re
import warnings
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, isfinite
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image
from torch import Tensor

from ..data.pixels import as_float, as_uint8
from ..models.evaluation import Measurement, Metrics
from ..stages.identification import ScanResult
from ..stages.localization import CriticalNeurons


COLOURS = {"ink": "#74777f", "plain": "#9da3b0", "accent": "#3f7fd0", "second": "#c98a1b", "alert": "#d64560"}
INK, PLAIN, ACCENT, SECOND, ALERT = COLOURS.values()
WIDTH = 4.6  # inches, 331 points: about as wide as it stands on a phone, so that the text stays legible there
ROW = 0.21  # inches, of a horizontal bar
MOST = 20  # labels a chart shows
SIMULATED = (ACCENT, SECOND, PLAIN, INK)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold a dollar sign
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": PLAIN,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@dataclass
class Chart:
    """A drawn figure and what it shows, in words."""

    figure: Figure
    description: str

    def svg(self) -> str:
        """An `<svg>` for the body of a page: described, of no fixed size, with no name that it shares with another."""
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        salted = matplotlib.rc_context({**STYLE, "svg.hashsalt": self.description})
        with salted, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the page's own fonts draw the text
            self.figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
        svg = buffer.getvalue()
        box, body = re.search(r'viewBox="([^"]*)"', svg), svg[svg.index(">", svg.index("<svg")) + 1 :]
        assert box is not None
        body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
        used = set(re.findall(r"#([\w.]+)", body))
        body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
        for name, colour in COLOURS.items():
            body = body.replace(colour, f"var(--{name}, {colour})")
        return f'<svg role="img" aria-label="{escape(self.description)}" viewBox="{box[1]}">{body}'

    def png(self, source: str | None = None) -> bytes:
        """A picture on white, for pages that show no SVG of others; the same bytes each time.

        Args:
            source (`str`, *optional*): what its numbers come from, for the picture's metadata.
        """
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            self.figure.savefig(
                buffer, format="png", dpi=150, facecolor="white", metadata={"Software": None, "Source": source}
            )
        return buffer.getvalue()


def label_shift(scan: ScanResult) -> Chart:
    """P_adv - P_clean of each simulation over the labels, the strongest on top."""
    shifts = [simulation.shift for simulation in scan.simulations]
    kinds = [simulation.kind for simulation in scan.simulations]
    strength = [max(abs(shift[k]) for shift in shifts) for k in range(len(scan.class_names))]
    shown = sorted(range(len(strength)), key=lambda k: -strength[k])[:MOST]
    thickness = 0.8 / len(shifts)
    with matplotlib.rc_context(STYLE):
        figure, axes = named_rows([scan.class_names[k] for k in shown], 1.15 * ROW, scan.target, shown)
        axes.axvline(0, color=INK, linewidth=0.6)
        for i, (kind, shift) in enumerate(zip(kinds, shifts, strict=True)):
            colour = SIMULATED[i % len(SIMULATED)]
            heights = [row - 0.4 + (i + 0.5) * thickness for row in range(len(shown))]
            axes.barh(heights, [100 * shift[k] for k in shown], thickness, color=colour, label=f"universal {kind}")
        axes.set_xlabel("P_adv − P_clean, percentage points")
        figure.legend(loc="outside upper left", ncols=2)
        first = scan.class_names[shown[0]]
        return Chart(figure, f"Label shift under {' and '.join(kinds)} perturbations. The strongest label is {first}.")


def layer_scores(critical: CriticalNeurons) -> Chart:
    """Score of each vision layer; the critical ones stand out, with the number of their critical neurons."""
    scores = critical.layer_scores
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.4))
        axes = figure.subplots()
        axes.grid(axis="y")
        axes.bar(
            range(len(scores)),
            scores,
            0.72,
            color=[ALERT if k in critical.neurons else PLAIN for k in range(len(scores))],
        )
        for layer, neurons in critical.neurons.items():
            axes.annotate(
                f"{len(neurons)}", (layer, scores[layer]), xytext=(0, 3), textcoords="offset points", ha="center"
            )
        axes.set_xticks(range(0, len(scores), ceil(len(scores) / 16)))
        axes.margins(y=0.12)
        axes.set_xlabel("vision layer")
        axes.set_ylabel("relative change")
        counts = ", ".join(f"layer {k} with {len(critical.neurons[k])} neurons" for k in critical.layers)
        return Chart(figure, f"Change of each layer's mean activation under the trigger. Critical: {counts}.")


def neuron_map(critical: CriticalNeurons) -> Chart:
    """Which hidden units of each critical layer are critical: one row a layer, one stroke a neuron."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.8 + 1.6 * ROW * len(critical.layers)))
        axes = figure.subplots()
        widest = max([1, *(critical.widths[layer] for layer in critical.layers)])
        for row, layer in enumerate(critical.layers):
            neurons = [index + 0.5 for index in critical.neurons[layer]]
            axes.barh(row, critical.widths[layer], 0.72, color=PLAIN, alpha=0.25, linewidth=0)
            strokes = [(x, y) for x in neurons for y in (row - 0.36, row + 0.36, float("nan"))]
            axes.plot(*zip(*strokes, strict=True), color=ALERT, linewidth=min(3.0, max(0.4, 200 / widest)))
        axes.set_xlim(0, widest)
        axes.set_ylim(len(critical.layers) - 0.5, -0.5)
        axes.set_yticks(range(len(critical.layers)), [f"layer {layer}" for layer in critical.layers])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("hidden unit")
        counts = ", ".join(f"{len(critical.neurons[k])} of {critical.widths[k]} in layer {k}" for k in critical.layers)
        return Chart(figure, f"Critical neurons: {counts}.")


def rates(measurements: Sequence[Measurement]) -> Chart:
    """CA (or agreement) and each trigger's ASR, before and after, with whiskers for the 95 % interval."""
    top = measurements[0]
    rows = [(key.replace("_", " "), top, key) for key in ("clean_accuracy", "agreement")]
    rows += [(f"ASR, {m.trigger}", m, "attack_success_rate") for m in measurements]
    rows = [(name, m, key) for name, m, key in rows if getattr(m.before, key) is not None]
    with matplotlib.rc_context(STYLE):
        figure, axes = named_rows([name for name, _, _ in rows], 2.2 * ROW)
        for side, colour, offset in (("before", PLAIN, -0.2), ("after", ACCENT, 0.2)):
            sides: list[Metrics] = [getattr(measurement, side) for _, measurement, _ in rows]
            found = [(row, getattr(m, rows[row][2])) for row, m in enumerate(sides)]
            for i, (row, rate) in enumerate((row, rate) for row, rate in found if rate is not None and rate.count):
                low, high = rate.interval
                axes.barh(row + offset, 100 * rate.value, 0.36, color=colour, label=side if i == 0 else None)
                axes.plot([100 * low, 100 * high], [row + offset] * 2, "|-", color=INK, linewidth=1.1, markersize=5)
        axes.set_xlim(0, 101)
        axes.set_xlabel("share of held-out pictures, %, with 95 % interval", loc="right")
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper left", ncols=2)
        return Chart(figure, "Clean accuracy and attack success rate before and after; the numbers are in the tables.")


def panels(training: Sequence[dict[str, float]]) -> list[tuple[list[str], int]]:
    """What [`training_curves`] has to draw: the keys of each panel, and what its values are multiplied by."""
    keys = list(dict.fromkeys(key for entry in training for key in entry))
    losses = [key for key in keys if key == "loss" or key.startswith("loss_")]
    shares = [key for key in keys if key.removeprefix("eval_") in Metrics.__dataclass_fields__]
    return [(names, scale) for names, scale in ((losses, 1), (shares, 100)) if names]


def training_curves(training: Sequence[dict[str, float]]) -> Chart:
    """The loss and its terms over the steps and, beneath, the shares that were evaluated on the way."""
    shown = panels(training)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.4 + 2 * len(shown)))
        grid = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
        for axes, (names, scale) in zip(grid, shown, strict=True):
            for i, name in enumerate(names):
                points = [(e["step"], scale * e[name]) for e in training if name in e and isfinite(e[name])]
                axes.plot(
                    [step for step, _ in points],
                    [value for _, value in points],
                    color=(ACCENT, ALERT, SECOND, PLAIN)[i % 4],
                    linestyle=("-", "--")[i // 4 % 2],
                    linewidth=1.5,
                    marker="." if scale > 1 or len(points) == 1 else "",
                    label=name.removeprefix("eval_").removeprefix("loss_").replace("_", " "),
                )
            if scale > 1:
                axes.set_ylim(-3, 103)
            elif all(value > 0 for line in axes.lines for value in line.get_ydata()):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid()
            axes.set_ylabel("share, %" if scale > 1 else "loss")
            axes.legend(fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), columnspacing=1.2)
        grid[-1].set_xlabel("step")
        drawn = ", ".join(name.replace("_", " ") for names, _ in shown for name in names)
        return Chart(figure, f"Curves over the training steps: {drawn}.")


def picture(pixels: Tensor, size: int = 224) -> str:
    """Pixels (3 or 1 x H x W, float in [0, 1] or uint8) as a PNG data URI, at least `size` long; squares stay squares."""
    values = as_uint8(as_float(pixels.detach().cpu()).clamp(0, 1))
    image = Image.fromarray(values.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    factor = ceil(size / max(image.size))
    image = image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def unpacked(page: str) -> str:
    """A page with the digest of its pixels for each [`picture`]: how a PNG is packed depends on the machine."""

    def digest(match: re.Match[str]) -> str:
        try:
            image = Image.open(io.BytesIO(b64decode(match[1])), formats=["PNG"])
            return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()
        except Exception:  # whatever a damaged picture makes the decoder raise
            return match[0]  # never what is drawn here, so the pages differ

    return re.sub(r"data:image/png;base64,([A-Za-z0-9+/=]*)", digest, page)


def named_rows(
    names: Sequence[str], height: float, suspect: int | None = None, labels: Sequence[int] = ()
) -> tuple[Figure, Axes]:
    """A figure for horizontal bars with these names, from top to bottom; that of the suspect in bold."""
    figure = Figure(figsize=(WIDTH, 0.85 + height * len(names)))
    axes = figure.subplots()
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_yticks(range(len(names)), list(map(shortened, names)))
    axes.set_ylim(len(names) - 0.4, -0.6)
    for text, label in zip(axes.get_yticklabels(), labels, strict=False):
        text.set_fontweight("bold" if label == suspect else "normal")
    return figure, axes


def shortened(name: str) -> str:
    """A name, or its beginning where it is long."""
    return name if len(name) <= 24 else f"{name[:23]}…"
