"""Tables of docs/method.md: what scans and removals make of victims for development."""

import json
from typing import Any

import yaml
from results_file import RESULTS, percent, result, source

from hf_invertune.stages.calibration import SCALES, bars_at, nulls
from hf_invertune.stages.configs import FALSE_ALARMS, ScanConfig
from hf_invertune.stages.verdict import Verdict, judge


def worlds_of(kind: str) -> list[str]:
    return sorted(path.stem.removeprefix(f"{kind}_") for path in RESULTS.glob(f"{kind}_*.json"))


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
    low, high = "quiet", "suspicious"
    lines = [
        f"{world}: {len(seen)} of {len(attacked)} attacked models are not called clean, {len(right)} with a target of the "
        f"attack; {len(alarms)} of {len(clean)} clean models are not called clean.",
        "",
        f"| victim | target | verdict | {' | '.join(bars)} |",
        f"|---|---|---|{'---|' * len(bars)}",
        f"| bars | | | {' | '.join(f'{bar[low]:.2f}, {bar[high]:.2f}' for bar in bars.values())} |",
    ]
    for name, one in (attacked | clean).items():
        values = {race["family"]: (race["lead"], race["label"]) for race in one["races"]}
        for place in reversed(one["places"]):
            values[place["family"]] = (place["concentration"], place["label"])
        cells = [f"{values[family][0]:.2f} {values[family][1]}" for family in bars]
        verdict = one["verdict"] + (f": {one['target']}" if one["target"] else "")
        lines.append(f"| {name} | {', '.join(one['targets'])} | {verdict} | {' | '.join(cells)} |")
    same = [one for one in facts["victims"].values() if rejudged(one) == one["verdict"]]
    now = f"By the bars of this version {len(same)} of {len(facts['victims'])} verdicts are the same."
    return "\n".join([*lines, "", now, source(facts, f"detection_{world}")])


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
    facts = result(f"removal_{world}")
    lines = [
        f"{world}:",
        "",
        "| victim | verdict | outcome | target of the attack | ASR | floor | CA |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in facts["victims"].items():
        verdict = one["verdict"] + (f": {one['target']}" if one["target"] else "")
        for target, rates in zip(one["targets"], one["attack"], strict=True):
            asr, floor, accuracy = (
                [percent(share) for share in rates[key]]
                for key in ("attack_success_rate", "target_rate", "clean_accuracy")
            )
            change = " → ".join(accuracy)
            lines.append(
                f"| {name} | {verdict} | {one['outcome']} | {target} | {' → '.join(asr)} | {floor[1]} | {change} |"
            )
    return "\n".join([*lines, "", source(facts, f"removal_{world}")])


def label_counts() -> str:
    """What a scan of the embedded victim costs, and what it says, as the number of labels grows."""
    facts = result("label_counts")
    lines = [
        "| labels | of which race | verdict | pictures forward | of them backward | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for one in facts["scans"]:
        verdict = f"{one['verdict']}: {one['target']}" if one["target"] else one["verdict"]
        cells = (one["labels"], one["raced"], verdict, f"{one['forward']:,}", f"{one['backward']:,}", one["seconds"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    true = facts["scans"][0]["true_target"]
    return "\n".join([*lines, "", f"The target is {true!r}. {source(facts, 'label_counts', '../benchmarks')}"])


def text_keys() -> str:
    """How far words bend the labels' texts in clean models and in attacked ones, and what a removal leaves."""
    lines = [
        "| world | model | most bent | lead | square's cross-entropy under the word | verdict |",
        "|---|---|---|---|---|---|",
    ]
    sources = []
    for world in worlds_of("text_keys"):
        facts = result(f"text_keys_{world}")
        clean = [one for one in facts["victims"].values() if not one["attack_name"]]
        leads = sorted(one["lead"] for one in clean)
        labels = ", ".join(sorted({one["label"] for one in clean}))
        alarms = sum(one["verdict"] != "clean" for one in clean)
        span = f"{leads[0]:.2f} to {leads[-1]:.2f}"
        lines.append(f"| {world} | {len(clean)} clean models | {labels} | {span} | | {alarms} not clean |")
        for name, one in facts["victims"].items():
            if one["attack_name"]:
                entropy = "" if one["cross_entropy"] is None else f"{one['cross_entropy']:.2f} ({one['word']})"
                cells = (one["label"], f"{one['lead']:.2f}", entropy, one["verdict"])
                lines.append(f"| {world} | {name}, target {', '.join(one['targets'])} | {' | '.join(cells)} |")
        sources.append(source(facts, f"text_keys_{world}"))
    lines += ["", "| world | victim | outcome | ASR | floor | CA |", "|---|---|---|---|---|---|"]
    for world in worlds_of("text_keys"):
        for name, one in result(f"text_keys_{world}")["removals"].items():
            for before, after in one["attack"]:
                asr, accuracy = (
                    f"{percent(before[key])} → {percent(after[key])}"
                    for key in ("attack_success_rate", "clean_accuracy")
                )
                floor = percent(after["target_rate"])
                lines.append(f"| {world} | {name} | {one['outcome']} | {asr} | {floor} | {accuracy} |")
    return "\n".join([*lines, "", "  \n".join(sources)])


def trusted() -> str:
    """What the profile of a trusted model makes of the same statistics."""
    lines = [
        "| world | model | | verdict | masked | additive | blend | keyed | window | wave |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    sources = []
    for world in worlds_of("trusted"):
        facts = result(f"trusted_{world}")
        for name, one in facts["models"].items():
            shown = f"{name}, target {', '.join(one['targets'])}" if one["targets"] else name
            for how in ("without", "with"):
                leads, reached = one[how]["leads"], one[how]["concentrations"]
                verdict = one[how]["verdict"] + (f": {one[how]['target']}" if one[how]["target"] else "")
                cells = [f"{leads[family][1]:.2f} {leads[family][0]}" for family in leads]
                cells += [f"{value:.2f} (bar {one[how]['bars'][family][0]:.2f})" for family, value in reached.items()]
                lines.append(f"| {world} | {shown} | {how} | {verdict} | {' | '.join(cells)} |")
        sources.append(source(facts, f"trusted_{world}"))
    return "\n".join([*lines, "", "  \n".join(sources)])


def calibration() -> str:
    """What clean models reach by nature, and the bars that follow."""
    lines = [
        "| statistic | family | world | clean models | median | lower bar | upper bar |",
        "|---|---|---|---|---|---|---|",
    ]
    bars = {statistic: bars_at(statistic, FALSE_ALARMS) for statistic in SCALES}
    for (statistic, family), worlds in nulls().items():
        low, high = bars[statistic][family]
        for null in worlds:
            middle = SCALES[statistic][1](null.mean)
            lines.append(
                f"| {statistic} | {family} | {null.world} | {null.models} | {middle:.2f} | {low:.2f} | {high:.2f} |"
            )
    return "\n".join(lines)


def public_models() -> str:
    """What scans say of public models, as far as the calibration kit has been run on them."""
    path = RESULTS / "calibration_models.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    found = {line["model"]: line for line in lines}
    rows = ["| model | group | known as | verdict |", "|---|---|---|---|"]
    for one in yaml.safe_load((RESULTS.parent / "models" / "public.yaml").read_text())["models"]:
        known = f"backdoored, towards {one['target']}" if "target" in one else "clean"
        line = found.get(one["model"])
        said = "not run" if line is None else line["error"] or f"{line['verdict']} {line['found'] or ''}".strip()
        rows.append(f"| {one['model']} | {one['group']} | {known} | {said} |")
    return "\n".join(rows)


def other_families() -> str:
    """Removals on a SigLIP and on a CLIP in the format of open_clip."""
    facts = result("other_families")
    lines = [
        "| model | victim | verdict | outcome | ASR | floor | CA |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in facts["removals"]:
        verdict = one["verdict"] + (f": {one['target']}" if one["target"] else "")
        for before, after in zip(one["before"], one["after"], strict=True):
            asr, accuracy = (
                f"{percent(before[key])} → {percent(after[key])}" for key in ("attack_success_rate", "clean_accuracy")
            )
            cells = (
                one["model"],
                one["victim"],
                verdict,
                one["outcome"],
                asr,
                percent(after["target_rate"]),
                accuracy,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", source(facts, "other_families")])
