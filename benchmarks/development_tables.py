"""Tables of docs/method.md: what scans and removals make of victims for development."""

from results_file import RESULTS, percent, result, source


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
    return "\n".join([*lines, "", source(facts, f"detection_{world}", "../benchmarks")])


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
    return "\n".join([*lines, "", source(facts, f"removal_{world}", "../benchmarks")])


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
