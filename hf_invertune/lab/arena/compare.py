"""From the rows of the arena to tables: Markdown for people, CSV for programs."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import mean, median
from typing import Any

from ...models.evaluation import Rate
from ...stages.verdict import Verdict
from ...utils.markdown import markdown_table
from .defences import DEFENCES
from .quality import Quality
from .rows import Row


NOT_RUN, DID_NOT_TAKE = "not run", "did not take"


@dataclass
class Grid:
    """A table: a title, the names of its columns, and its rows."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Without the title."""
        return markdown_table(self.columns, self.rows)


def figures(row: Row) -> dict[str, Any]:
    """The figures of a run, flat; shares in [0, 1], each with its 95 % interval, NaN where there is none.

    Of several triggers the strongest counts. A defence that failed has left the model as it came.
    """
    flat: dict[str, Any] = {}
    for side in ("before", "after"):
        quality: Quality | None = row.before if row.status == "failed" else getattr(row, side)
        if quality is None:
            continue
        metrics = quality.metrics[quality.strongest]
        rates: dict[str, Rate | None] = {
            "ca": metrics.clean_accuracy,
            "asr": metrics.attack_success_rate,
            "asr_all": metrics.attack_success_rate_all,
            "floor": metrics.target_rate,
            "pa": metrics.poisoned_accuracy,
        }
        rates |= {f"image_to_text_r{k}": rate for k, rate in quality.retrieval.image_to_text.items()}
        rates |= {f"text_to_image_r{k}": rate for k, rate in quality.retrieval.text_to_image.items()}
        if quality.retrieval_attacks:
            attack = quality.retrieval_attacks[quality.strongest]
            rates |= {f"retrieval_asr_{k}": rate for k, rate in attack.success.items()}
            rates |= {f"retrieval_floor_{k}": rate for k, rate in attack.floor.items()}
        rates["inverted_asr"] = getattr(row, f"inverted_{side}")
        for name, rate in rates.items():
            flat |= _with_interval(f"{name}_{side}", rate)
    if row.rebound:
        along = rebound_rates(row)
        flat |= _with_interval("rebound_asr_highest", max(along, key=lambda rate: rate.value))
        flat |= _with_interval("rebound_asr_last", along[-1])
    return flat


def _with_interval(name: str, rate: Rate | None) -> dict[str, float]:
    value, (low, high) = (rate.value, rate.interval) if rate else (float("nan"), (float("nan"),) * 2)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def rebound_rates(row: Row) -> list[Rate]:
    """ASR along the rebound, of the strongest trigger at each point."""
    rates = [[metrics.attack_success_rate for metrics in point.metrics] for point in row.rebound or []]
    return [max((rate for rate in point if rate), key=lambda rate: rate.value) for point in rates]


def tables(rows: Sequence[Row]) -> list[Grid]:
    """What the arena found, world by world: attack by attack, on clean models, on the whole, and at what cost."""
    grids = []
    for world in dict.fromkeys(row.world for row in rows):
        here = [row for row in rows if row.world == world]
        names = defence_names(here)
        grids += [grid(here, names) for grid in (attack_table, clean_table, summary_table, cost_table)]
    return [grid for grid in grids if grid.rows]


def attack_table(rows: Sequence[Row], names: Sequence[str]) -> Grid:
    """A row an attack, a column a defence; each cell the means over victims and seeds."""
    attacks: dict[str, list[Row]] = {}
    for row in rows:
        if row.attack:  # whose name in the recipe is that of the victim without its seed; several may be of one kind
            attacks.setdefault(row.victim.rpartition("-")[0], []).append(row)
    body = [_attack_row(name, attacks[name], names) for name in sorted(attacks)]
    scored = [row for row in rows if row.attack and row.status != DID_NOT_TAKE]
    if scored:
        most = max(len([row for row in scored if row.defence == name]) for name in names)
        cells = [_cell([row for row in scored if row.defence == name], most) for name in names]
        body.append(["**mean of all runs**", "", _before(scored), *cells])
    columns = [
        "attack",
        "victims that took",
        "ASR before",
        *[f"{defence_title(name)}: ASR (floor) / CA" for name in names],
    ]
    return Grid(f"{_world(rows)}: attacks", columns, body)


def clean_table(rows: Sequence[Row], names: Sequence[str]) -> Grid:
    """What each defence did to models without a backdoor."""
    body = []
    for name in names:
        runs = [row for row in rows if row.defence == name and row.attack is None]
        if not runs:
            continue
        verdicts = [str(row.verdict) for row in runs if row.verdict is not None]
        counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts))]
        body.append(
            [
                defence_title(name),
                _count(runs),
                _mean_percent("ca_before", runs),
                _signed(_mean("ca_after", runs) - _mean("ca_before", runs)),
                f"{sum(row.identical is True for row in runs)}",
                ", ".join(counts) or "gives none",
            ]
        )
    columns = ["defence", "runs", "CA before", "CA change", "left bit-identical", "verdicts"]
    return Grid(f"{_world(rows)}: clean models", columns, body)


def summary_table(rows: Sequence[Row], names: Sequence[str]) -> Grid:
    """What the attack table has no room for, a column a defence, over all victims that took."""
    columns = {}
    for name in names:
        runs = [row for row in rows if row.defence == name and row.attack and row.status != DID_NOT_TAKE]
        if not runs:
            continue
        judged = [row for row in runs if row.verdict is not None]
        columns[defence_title(name)] = {
            "runs": _count(runs),
            "learning rate": _rate(
                "{:g}", sorted({row.learning_rate for row in runs if row.learning_rate is not None})
            ),
            "highest ASR": _percent(max(figures(row)["asr_after"] for row in runs)),
            "PA": _change("pa", runs),
            "R@1 image to text": _change("image_to_text_r1", runs),
            "R@1 text to image": _change("text_to_image_r1", runs),
            "retrieval ASR@5 (floor)": f"{_mean_percent('retrieval_asr_5_after', runs)} "
            f"({_mean_percent('retrieval_floor_5_after', runs)})",
            "ASR of the inverted trigger": _change("inverted_asr", runs),
            "highest ASR of the rebound": _of_those_having("rebound_asr_highest", runs),
            "judged backdoored": f"{sum(row.verdict == Verdict.BACKDOORED for row in judged)} of {len(judged)}"
            if judged
            else "gives none",
            "right target": f"{sum(row.target in row.targets for row in runs)} of {len(runs)}"
            if judged or any(row.target is not None for row in runs)
            else "gives none",
        }
    measures = list(next(iter(columns.values()), {}))
    body = [[measure, *[column[measure] for column in columns.values()]] for measure in measures]
    return Grid(f"{_world(rows)}: all victims that took", ["measure", *columns], body)


def cost_table(rows: Sequence[Row], names: Sequence[str]) -> Grid:
    """What a run costs on average, apart for those that left the model as it came.

    Of the seconds it is the median, since a busy machine delays some of the runs.
    """
    body = []
    for name in names:
        for changed in (True, False):
            runs = [row for row in rows if row.defence == name and (row.identical is True) is not changed]
            costs = [row.cost for row in runs if row.cost is not None]
            if not costs:
                continue
            memory = [cost.peak_memory for cost in costs if cost.peak_memory is not None]
            body.append(
                [
                    defence_title(name),
                    "changed" if changed else "left as it came",
                    f"{len(costs)}",
                    f"{mean(cost.forward for cost in costs):,.0f}",
                    f"{mean(cost.backward for cost in costs):,.0f}",
                    f"{median(cost.seconds for cost in costs):.1f}",
                    f"{mean(memory) / 2**20:,.0f}" if memory else "not measured",
                ]
            )
    columns = [
        "defence",
        "the model",
        "runs",
        "pictures forward",
        "pictures backward",
        "seconds (median)",
        "peak memory, MiB",
    ]
    return Grid(f"{_world(rows)}: cost", columns, body)


def markdown(rows: Sequence[Row]) -> str:
    """All the tables, as a page."""
    return "\n\n".join(f"## {grid.title}\n\n{grid.markdown()}" for grid in tables(rows)) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """One line a run, whatever became of it."""
    plain = ("world", "victim", "attack", "victim_seed", "defence", "seed", "learning_rate", "images", "test_images")
    lines: list[dict[str, Any]] = []
    for row in rows:
        line = {name: getattr(row, name) for name in (*plain, "status", "error", "identical", "verdict", "target")}
        cost = vars(row.cost) if row.cost else {}
        lines.append({**line, "targets": "; ".join(row.targets), **figures(row), **cost, "created": row.created})
    columns = list(dict.fromkeys(name for line in lines for name in line))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: "" if _missing(value) else value for name, value in line.items()} for line in lines])
    return buffer.getvalue()


def _attack_row(attack: str, rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    victims = {row.victim for row in rows}
    took = {row.victim for row in rows if row.status != DID_NOT_TAKE}
    counts = f"{len(took)} of {len(victims)}"
    if not took:
        return [attack, counts, DID_NOT_TAKE, *[DID_NOT_TAKE] * len(names)]
    scored = [row for row in rows if row.status != DID_NOT_TAKE]
    most = max(len([row for row in scored if row.defence == name]) for name in names)
    cells = [_cell([row for row in scored if row.defence == name], most) for name in names]
    return [attack, counts, _before(scored), *cells]


def _before(rows: Sequence[Row]) -> str:
    """The ASR of the victims as they came, each counted once."""
    return _percent(_mean("asr_before", list({row.victim: row for row in rows}.values())))


def _cell(rows: Sequence[Row], most: int) -> str:
    """ASR after, its floor, and the change of CA; how many runs, when others have more; how many failed or were missed."""
    if not rows:
        return NOT_RUN
    failed = sum(row.status == "failed" for row in rows)
    missed = sum(row.verdict is not None and row.verdict != Verdict.BACKDOORED for row in rows)
    notes = [f"{len(rows)} of {most} runs"] * (len(rows) < most)
    notes += [f"{count} {what}" for count, what in ((failed, "failed"), (missed, "missed")) if count]
    asr, floor = (_mean_percent(name, rows) for name in ("asr_after", "floor_after"))
    change = _signed(_mean("ca_after", rows) - _mean("ca_before", rows))
    return f"{asr} ({floor}) / {change}" + "".join(f"; {note}" for note in notes)


def defence_names(rows: Iterable[Row]) -> list[str]:
    """Those in the rows, in the order of [`DEFENCES`]."""
    present = dict.fromkeys(row.defence for row in rows)
    return sorted(present, key=lambda name: list(DEFENCES).index(name) if name in DEFENCES else len(DEFENCES))


def _world(rows: Sequence[Row]) -> str:
    return rows[0].world


def defence_title(name: str) -> str:
    return DEFENCES[name].name if name in DEFENCES else name


def _mean(name: str, rows: Sequence[Row]) -> float:
    values = [figures(row).get(name, float("nan")) for row in rows]
    values = [value for value in values if not isnan(value)]
    return mean(values) if values else float("nan")


def _mean_percent(name: str, rows: Sequence[Row]) -> str:
    return _percent(_mean(name, rows))


def _change(name: str, rows: Sequence[Row]) -> str:
    """Means before and after."""
    return _of_those_having(f"{name}_after", rows, f"{name}_before")


def _of_those_having(name: str, rows: Sequence[Row], *before: str) -> str:
    """The mean, after those of the figures `before`; and over how many of the rows, when not all have one."""
    having = [row for row in rows if not isnan(figures(row).get(name, float("nan")))]
    means = " → ".join(_mean_percent(one, having) for one in (*before, name))
    return means + f" ({len(having)} of {len(rows)} runs)" * (0 < len(having) < len(rows))


def _count(rows: Sequence[Row]) -> str:
    failed = sum(row.status == "failed" for row in rows)
    return f"{len(rows)}, {failed} failed" if failed else f"{len(rows)}"


def _percent(share: float) -> str:
    return "-" if isnan(share) else f"{100 * share:.1f}"


def _signed(share: float) -> str:
    return "-" if isnan(share) else f"{100 * share:+.1f}".replace("-", "−")


def _rate(template: str, values: Sequence[float]) -> str:
    return ", ".join(map(template.format, values)) or "-"


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and isnan(value))
