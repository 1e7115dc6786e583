# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-invertune"]
# ///
"""Activation tuning with `InverTuneTrainer`, on one device or many, with every argument of the trainer on the command line.

    accelerate launch examples/remove_backdoor.py --model org/suspicious-clip --images clean_images/ --output_dir out

The first call of `train` identifies the target, inverts its triggers and finds the neurons that react; the tuning is
then shared by all the processes, and the main one saves the merged model in `out/model`. Without `--model` it cleans
the small backdoored CLIP that comes along with the package, on drawings. With `--push_to_hub --hub_model_id me/clean-clip`
the model is audited and pushed, with its card and report. For one device and a report that proves the result,
`hf-invertune remove` is the simpler way.
"""

import sys
from dataclasses import dataclass, field


@dataclass
class ScriptArguments:
    model: str | None = field(default=None, metadata={"help": "Folder or Hub id; by default the embedded victim."})
    images: str | None = field(default=None, metadata={"help": "Clean images; by default drawings."})
    target: str | None = field(default=None, metadata={"help": "Label that the backdoor leads to, when known."})
    config: str | None = field(default=None, metadata={"help": "Settings of the other stages, a .yaml or .toml file."})
    set: list[str] | None = field(default=None, metadata={"help": "Some of them, as inversion.steps=50."})


def main() -> None:
    from pathlib import Path

    from transformers import HfArgumentParser

    from hf_invertune import (
        InputError,
        InverTuneArguments,
        InverTuneTrainer,
        RemovalConfig,
        TriggerInversionCallback,
        confirm_labels,
        demo_images,
        demo_victim,
        load_images,
        load_model,
    )

    options, arguments = HfArgumentParser([ScriptArguments, InverTuneArguments]).parse_args_into_dataclasses()
    config = RemovalConfig.load(options.config) if options.config else RemovalConfig()
    config = config.assign(options.set or [])
    source = load_model(options.model or demo_victim("poisoned"), device=arguments.device)
    if options.images:
        data = load_images(options.images, source.processor, class_names=arguments.class_names)
        data = confirm_labels(data, source.encoder)
    else:
        data = demo_images()
    held_out, clean = data.split(config.audit.held_out, seed=arguments.seed)
    names = arguments.class_names or clean.class_names
    if names is None:
        raise InputError("`class_names`: the images name no classes; pass --class_names.")

    inversion = TriggerInversionCallback(target=options.target)
    trainer = InverTuneTrainer(source, arguments, clean, held_out, names, callbacks=[inversion], config=config)
    trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        folder = Path(arguments.output_dir) / "model"
        trainer.cleaned_model().save_pretrained(folder)
        print(f"target: {names[trainer.plan.target]}")
        print(f"CA {metrics.get('eval_clean_accuracy', float('nan')):.1%}", end=", ")
        print(f"ASR {metrics['eval_attack_success_rate']:.1%} of the inverted trigger: {folder}")


if __name__ == "__main__":
    from hf_invertune import HubError, InputError

    try:
        main()
    except (InputError, HubError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
