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

from dataclasses import dataclass, field


@dataclass
class ScriptArguments:
    model: str | None = field(default=None, metadata={"help": "Folder or Hub id; by default the embedded victim."})
    images: str | None = field(default=None, metadata={"help": "Clean images; by default drawings."})
    held_out: float = field(default=0.25, metadata={"help": "Share of the images kept for the evaluation."})
    target: str | None = field(default=None, metadata={"help": "Label that the backdoor leads to, when known."})
    inversion_steps: int = field(default=100, metadata={"help": "Updates of the trigger inversion."})


def main() -> None:
    from pathlib import Path

    from transformers import HfArgumentParser

    from hf_invertune import InputError, InversionConfig, InverTuneArguments, InverTuneTrainer, load_images
    from hf_invertune.lab.demo import drawings, victim_folder
    from hf_invertune.models.adapter import merge
    from hf_invertune.models.loading import load_clip, save_clip
    from hf_invertune.tuning.callbacks import TriggerInversionCallback

    options, arguments = HfArgumentParser([ScriptArguments, InverTuneArguments]).parse_args_into_dataclasses()
    source = load_clip(options.model or victim_folder("poisoned"), device=arguments.device)
    if options.images:
        data = load_images(options.images, source.processor, class_names=arguments.class_names)
    else:
        data = drawings(512, seed=11)
    held_out, clean = data.split(options.held_out, seed=arguments.seed)
    names = arguments.class_names or clean.class_names
    if names is None:
        raise InputError("`class_names`: the images name no classes; pass --class_names.")
    target = names.index(options.target) if options.target else None

    inversion = TriggerInversionCallback(target=target, inversion=InversionConfig(steps=options.inversion_steps))
    trainer = InverTuneTrainer(source, arguments, clean, held_out, names, callbacks=[inversion])
    trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        folder = Path(arguments.output_dir) / "model"
        save_clip(merge(trainer.model, trainer.settings, source.dtype), source.processor, source.dtype, folder)
        print(f"target: {names[trainer.plan.target]}")
        print(f"CA {metrics.get('eval_clean_accuracy', float('nan')):.1%}", end=", ")
        print(f"ASR {metrics['eval_attack_success_rate']:.1%} of the inverted trigger: {folder}")


if __name__ == "__main__":
    main()
