# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-invertune"]
# ///
"""The stages one by one, each with its own result, which is saved and could be loaded again.

    python examples/step_by_step.py --output_dir steps

`BackdoorRemover.remove` runs all of this in one call; take the stages apart to look between them, to change one, or to
go on from a saved one with `ScanResult.load` and its like. The model is the small backdoored CLIP that comes along.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output_dir", default="steps", help="folder for the results, one sub-folder a stage")
    parser.add_argument("--target", help="go on with this label, whatever the scan concludes")
    parser.add_argument("--set", nargs="+", default=[], help="settings, as scan.families=[masked] inversion.steps=50")
    options = parser.parse_args()

    from hf_invertune import (
        InverTuneArguments,
        InverTuneTrainer,
        NeuronLocalizer,
        RemovalConfig,
        TargetIdentifier,
        TriggerInverter,
        TuningPlan,
        ZeroShotClassifier,
        demo_images,
        demo_victim,
        evaluate,
        load_model,
    )

    output, config = Path(options.output_dir), RemovalConfig().assign(options.set)
    source = load_model(demo_victim("poisoned"))
    held_out, clean = demo_images().split(0.25)
    classifier = ZeroShotClassifier(source.encoder, clean.class_names)

    # 1. Is there a backdoor, and which label does it lead to?
    scan = TargetIdentifier(classifier, config.scan).identify(clean.pixels)
    scan.save(output / "1-scan")
    print(f"1. {scan.verdict}, towards {scan.target_name!r}")
    target = classifier.label_of(options.target) if options.target else scan.target
    if target is None:
        return

    # 2. What does the trigger look like? Go on from what the scan found.
    found = scan.evidence_against(target)[:1]
    family = config.scan.family(found[0].family) if found else config.scan.families[0]
    inverter = TriggerInverter(classifier, family, config.inversion)
    (inverted,) = inverter.invert(clean.pixels, [target], start=[candidate.trigger for candidate in found])
    inverted.save(output / "2-inversion")
    print(f"2. {inverted.describe()}, cross-entropy {inverted.cross_entropy:.2f} nats")

    # 3. Which layers and neurons react to it?
    critical = NeuronLocalizer(source.encoder).localize(clean.pixels, [inverted.trigger])
    critical.save(output / "3-localization")
    print(f"3. {', '.join(f'layer {layer}: {len(neurons)} neurons' for layer, neurons in critical.neurons.items())}")

    def measure(when: str, classifier: ZeroShotClassifier) -> None:
        rates = evaluate(classifier, held_out.pixels, labels=held_out.labels, trigger=inverted.trigger, target=target)
        rates.save(output / f"metrics-{when}")
        print(f"   {when}: CA {rates.clean_accuracy.value:.1%}, ASR {rates.attack_success_rate.value:.1%}")

    # 4. Tune a LoRA adapter until the trigger does nothing any more, and merge it.
    measure("before", classifier)
    arguments = InverTuneArguments(
        str(output / "4-tuning"), save_strategy="no", disable_tqdm=True, **asdict(config.tuning)
    )
    plan = TuningPlan(target, [inverted], critical, list(classifier.class_names))
    trainer = InverTuneTrainer(source, arguments, clean, held_out, classifier.class_names, plan=plan)
    trainer.train()
    plan.save(output / "4-tuning")
    cleaned = trainer.cleaned_model()
    measure("after", ZeroShotClassifier(cleaned.encoder, classifier.class_names))
    cleaned.save_pretrained(output / "5-model")
    print(f"4. cleaned model in {output / '5-model'}")


if __name__ == "__main__":
    from hf_invertune import HubError, InputError

    try:
        main()
    except (InputError, HubError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
