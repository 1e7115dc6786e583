"""Tables about victims for development: what scans and removals make of them, and what the bars follow from."""

import json
from typing import Any

import yaml
from results_file import RESULTS, percent, result, sourced

from hf_invertune.stages.calibration import SCALES, bars_at, nulls
from hf_invertune.stages.configs import FALSE_ALARMS, ScanConfig
from hf_invertune.stages.verdict import Verdict, judge
from hf_invertune.utils.markdown import markdown_table


def worlds_of(kind: str) -> list[str]:
    return sorted(path.stem.removeprefix(f"{kind}_") for path in RESULTS.glob(f"{kind}_*.json"))


def verdict_of(one: dict[str, Any]) -> str:
    """The verdict of a scan, and where it leads to."""
    return one["verdict"] + (f": {one['target']}" if one["target"] else "")


def rates_of(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """ASR, its floor and CA of one trigger, as what they were and are."""
    asr, accuracy = (
        f"{percent(before[key])} → {percent(after[key])}" for key in ("attack_success_rate", "clean_accuracy")
    )
    return [asr, percent(after["target_rate"]), accuracy]


def detection() -> str:
    """What a scan says of each victim for development, with the statistic of every family."""
    return "\n\n".join(detection_of(world) for world in worlds_of("detection"))


def detection_of(world: str) -> str:
    facts = result(f"detection_{world}")
    bars = facts["config"]["scan"]["bars"] | facts["config"]["scan"]["gathering"]["bars"]
    attacked = {name: one for name, one in facts["victims"].items() if one["attack_name"]}
    clean = {name: one for name, one in facts["victims"].items() if not one["attack_name"]}
    seen = [one for one in attacked.values() if one["verdict"] != "clean"]
    right = [one for one in seen if one["target"] in one["targets"]]
    alarms = [one for one in clean.values() if one["verdict"] != "clean"]
    counted = (
        f"{world}: {len(seen)} of {len(attacked)} attacked models are not called clean, {len(right)} with a target of the "
        f"attack; {len(alarms)} of {len(clean)} clean models are not called clean."
    )
    rows = [["bars", "", "", *(f"{bar['quiet']:.2f}, {bar['suspicious']:.2f}" for bar in bars.values())]]
    for name, one in (attacked | clean).items():
        values = {race["family"]: (race["lead"], race["label"]) for race in one["races"]}
        for place in reversed(one["places"]):
            values[place["family"]] = (place["concentration"], place["label"])
        cells = [f"{values[family][0]:.2f} {values[family][1]}" for family in bars]
        rows.append([name, ", ".join(one["targets"]), verdict_of(one), *cells])
    table = markdown_table(["victim", "target", "verdict", *bars], rows)
    same = [one for one in facts["victims"].values() if rejudged(one) == one["verdict"]]
    now = f"By the bars of this version {len(same)} of {len(facts['victims'])} verdicts are the same."
    return sourced(f"{counted}\n\n{table}\n\n{now}", f"detection_{world}")


def rejudged(one: dict[str, Any]) -> str:
    """The gravest verdict of the statistics that were measured, by the bars that are the default now."""
    scan = ScanConfig()
    verdicts = [judge(place["concentration"], scan.gathering.bars[place["family"]]) for place in one["places"]]
    verdicts += [judge(race["lead"], scan.bars[race["family"]]) for race in one["races"]]
    order = [Verdict.BACKDOORED, Verdict.INCONCLUSIVE, Verdict.CLEAN]
    return min(verdicts, key=order.index).value


def removals() -> str:
    """What a whole removal leaves of each attack on the victims for development."""
    return "\n\n".join(removals_of(world) for world in worlds_of("removal")) or "None has been recorded yet."


def removals_of(world: str) -> str:
    rows = []
    for name, one in result(f"removal_{world}")["victims"].items():
        for target, rates in zip(one["targets"], one["attack"], strict=True):
            before, after = ({key: pair[side] for key, pair in rates.items()} for side in (0, 1))
            rows.append([name, verdict_of(one), one["outcome"], target, *rates_of(before, after)])
    columns = ["victim", "verdict", "outcome", "target of the attack", "ASR", "floor", "CA"]
    return sourced(f"{world}:\n\n{markdown_table(columns, rows)}", f"removal_{world}")


def label_counts() -> str:
    """What a scan of the embedded victim costs, and what it says, as the number of labels grows."""
    scans = result("label_counts")["scans"]
    columns = ["labels", "of which race", "verdict", "pictures forward", "of them backward", "seconds"]
    rows = [
        [
            one["labels"],
            one["raced"],
            verdict_of(one),
            f"{one['forward']:,}",
            f"{one['backward']:,}",
            one["seconds"],
        ]
        for one in scans
    ]
    target = f"The target is {scans[0]['true_target']!r}."
    return sourced(f"{markdown_table(columns, rows)}\n\n{target}", "label_counts")


def text_keys() -> str:
    """How far words bend the labels' texts in clean models and in attacked ones, and what a removal leaves."""
    worlds = {world: result(f"text_keys_{world}") for world in worlds_of("text_keys")}
    bent: list[list[str]] = []
    left: list[list[str]] = []
    for world, facts in worlds.items():
        clean = [one for one in facts["victims"].values() if not one["attack_name"]]
        leads = sorted(one["lead"] for one in clean)
        labels = ", ".join(sorted({one["label"] for one in clean}))
        alarms = sum(one["verdict"] != "clean" for one in clean)
        span = f"{leads[0]:.2f} to {leads[-1]:.2f}"
        bent.append([world, f"{len(clean)} clean models", labels, span, "", f"{alarms} not clean"])
        for name, one in facts["victims"].items():
            if one["attack_name"]:
                entropy = "" if one["cross_entropy"] is None else f"{one['cross_entropy']:.2f} ({one['word']})"
                cells = [one["label"], f"{one['lead']:.2f}", entropy, one["verdict"]]
                bent.append([world, f"{name}, target {', '.join(one['targets'])}", *cells])
        for name, one in facts["removals"].items():
            left += [[world, name, one["outcome"], *rates_of(*pair)] for pair in one["attack"]]
    columns = ["world", "model", "most bent", "lead", "square's cross-entropy under the word", "verdict"]
    tables = [markdown_table(columns, bent)]
    tables.append(markdown_table(["world", "victim", "outcome", "ASR", "floor", "CA"], left))
    return sourced("\n\n".join(tables), *(f"text_keys_{world}" for world in worlds))


def trusted() -> str:
    """What the profile of a trusted model makes of the same statistics."""
    rows = []
    for world in worlds_of("trusted"):
        for name, one in result(f"trusted_{world}")["models"].items():
            shown = f"{name}, target {', '.join(one['targets'])}" if one["targets"] else name
            for how in ("without", "with"):
                scan = one[how]
                cells = [f"{lead:.2f} {label}" for label, lead in scan["leads"].values()]
                reached = scan["concentrations"].items()
                cells += [f"{value:.2f} (bar {scan['bars'][family][0]:.2f})" for family, value in reached]
                rows.append([world, shown, how, verdict_of(scan), *cells])
    columns = ["world", "model", "", "verdict", "masked", "additive", "blend", "keyed", "window", "wave"]
    return sourced(markdown_table(columns, rows), *(f"trusted_{world}" for world in worlds_of("trusted")))


def calibration() -> str:
    """What clean models reach by nature, and the bars that follow."""
    bars = {statistic: bars_at(statistic, FALSE_ALARMS) for statistic in SCALES}
    rows = []
    for (statistic, family), worlds in nulls().items():
        for null in worlds:
            figures = [SCALES[statistic][1](null.mean), *bars[statistic][family]]
            rows.append([statistic, family, null.world, null.models, *(f"{figure:.2f}" for figure in figures)])
    columns = ["statistic", "family", "world", "clean models", "median", "lower bar", "upper bar"]
    return markdown_table(columns, rows)


def public_models() -> str:
    """What scans say of public models, as far as the calibration kit has been run on them."""
    path = RESULTS / "calibration_models.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    found = {line["model"]: line for line in lines}
    rows = []
    for one in yaml.safe_load((RESULTS.parent / "models" / "public.yaml").read_text())["models"]:
        known = f"backdoored, towards {one['target']}" if "target" in one else "clean"
        line = found.get(one["model"])
        said = "not run" if line is None else line["error"] or f"{line['verdict']} {line['found'] or ''}".strip()
        rows.append([one["model"], one["group"], known, said])
    return markdown_table(["model", "group", "known as", "verdict"], rows)


def other_families() -> str:
    """Removals on a SigLIP and on a CLIP in the format of open_clip."""
    rows = [
        [one["model"], one["victim"], verdict_of(one), one["outcome"], *rates_of(before, after)]
        for one in result("other_families")["removals"]
        for before, after in zip(one["before"], one["after"], strict=True)
    ]
    columns = ["model", "victim", "verdict", "outcome", "ASR", "floor", "CA"]
    return sourced(markdown_table(columns, rows), "other_families")
