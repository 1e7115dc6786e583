"""The options that several verbs have, each in one place. Nothing heavy is imported up here."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..data.names import read_class_names, read_templates
from ..errors import ExitCode, InputError, nearest


if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from ..data.pixels import PixelDataset
    from ..remover import BackdoorRemover
    from ..stages.configs import RemovalConfig
    from ..stages.reference import Profile


EXIT_CODES = "[bold]Exit codes[/bold]\n\n" + "\n".join(
    f"[bold]{int(code):>3}[/bold]  {code.meaning}" for code in ExitCode
)


IMAGES = "a folder, a table (.parquet, .tar, .csv, .jsonl, ...) or the id of a Hub dataset, name:config if need be."


def option(help: str, *names: str, **settings: Any) -> Any:
    """An option whose default needs no mention."""
    return typer.Option(*names, help=help, show_default=False, **settings)


ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A CLIP model: a folder, a Hub id or its page.")]
TextModel = Annotated[
    str | None,
    option(
        "For an image tower alone, or in a LLaVA: the whole model whose text tower it was trained with; a scan can do "
        "without, and then looks at no labels."
    ),
]
ClassNames = Annotated[
    str | None,
    option("'a,b,c', or a .txt (one a line), .csv or .json file; by default those of the images, else ImageNet's."),
]
Split = Annotated[str, typer.Option(help="Split of a dataset.")]
ImageColumn = Annotated[str | None, option("Column of the images.")]
LabelColumn = Annotated[str | None, option("Column of the labels.")]
FolderClasses = Annotated[
    bool | None,
    option(
        "Whether sub-folders are classes; by default where the model reads their names better than chance.",
        "--folder-classes/--no-folder-classes",
    ),
]
Limit = Annotated[int | None, option("Take at most so many images.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**32 - 1)]
Overwrite = Annotated[bool, option("Replace what an earlier run wrote there, and nothing else.", "--overwrite")]
Target = Annotated[str | None, option("Class name that the backdoor leads to.")]
TriggerFile = Annotated[
    Path | None, option("A known trigger to measure, a .safetensors file.", exists=True, dir_okay=False)
]
Revision = Annotated[str | None, option("Branch, tag or commit of a model on the Hub.")]
Subfolder = Annotated[str | None, option("Folder of the model's repository or folder that holds it.")]
Variant = Annotated[str | None, option("Which weights of a model that has several, e.g. fp16.")]
Token = Annotated[str | None, option("Access token of the Hub.", envvar="HF_TOKEN")]
Device = Annotated[str | None, option("By default an accelerator where there is one, else the CPU.")]
Workers = Annotated[int, typer.Option(help="Processes side by side, one thread each.")]
AsJson = Annotated[bool, option("Print one JSON object instead of tables.", "--json")]
Verbose = Annotated[bool, option("Print the libraries' logs too, on stderr.", "--verbose", "-v")]
ConfigFile = Annotated[
    Path | None, option("Settings, a .yaml or .toml file; see docs/configuration.md.", exists=True, dir_okay=False)
]
Reference = Annotated[
    str | None,
    option(
        "A trusted model over the same labels, of any make, or the profile of one; what is easy there counts less."
    ),
]
Preset = Annotated[
    str | None,
    option(
        "Settings by name: 'default', 'patches' to look for patches alone, 'paper' for what InverTune's authors describe."
    ),
]
Assignments = Annotated[
    list[str] | None, option("One setting, as tuning.lora_r=16; once for each. It overrules --config.", "--set")
]


READ_BY = ("split", "image_column", "label_column", "folder_classes")
"""The options of [`Given`] that say how its images are read."""


@dataclass
class Given:
    """Clean images, settings, and where models come from: what the verbs of a scan and a removal have in common."""

    text_model: TextModel = None
    images: Annotated[str | None, option(f"Clean images: {IMAGES} By default 256 of COCO, from the Hub.")] = None
    class_names: ClassNames = None
    templates: Annotated[Path | None, option("Prompt templates, a .txt file with one a line, each with {}.")] = None
    split: Split = "train"
    image_column: ImageColumn = None
    label_column: LabelColumn = None
    folder_classes: FolderClasses = None
    limit: Limit = None
    config: ConfigFile = None
    preset: Preset = None
    assignments: Assignments = None
    false_alarms: Annotated[
        float | None, option("Rate at which clean models may be called anything but clean; 0.01 by default.")
    ] = None
    seed: Annotated[int | None, option("Seed of everything random.", min=0, max=2**32 - 1)] = None
    deterministic: Annotated[
        bool, option("The same bits from run to run on one machine, more slowly on a GPU.", "--deterministic")
    ] = False
    revision: Revision = None
    subfolder: Subfolder = None
    variant: Variant = None
    token: Token = None
    device: Device = None

    def __post_init__(self) -> None:
        self.names = None if self.class_names is None else read_class_names(self.class_names)
        self.prompts = None if self.templates is None else read_templates(self.templates)

    def settings(self, *assignments: str, base: dict[str, Any] | None = None) -> "RemovalConfig":
        """Those of the file, with what options say instead; with `deterministic` PyTorch is told so as well.

        Args:
            assignments (`str`): those of a verb's own options.
            base (`dict`, *optional*): those that hold where the options name neither a file nor a preset.
        """
        from ..stages.configs import RemovalConfig
        from ..stages.presets import preset

        if self.preset is not None and self.config is not None:
            raise InputError(
                "`preset`: got a `config` file too; pass one of them, and single settings by `assignments`."
            )
        if self.config is not None:
            config = RemovalConfig.load(self.config)
        elif self.preset is not None:
            config = preset(self.preset)
        else:
            config = RemovalConfig.of(base or {}, "settings")
        if self.false_alarms is not None:
            config = config.with_false_alarms(self.false_alarms)
        config = config.assign([*(self.assignments or []), *assignments], "assignments")
        config = config if self.seed is None else config.assign([f"seed={self.seed}"])
        if self.deterministic:
            from transformers import enable_full_determinism

            enable_full_determinism(config.seed)
        return config

    def pictures(self, seed: int, processor: "ProcessorMixin") -> "PixelDataset":
        """The images for a model with this processor; `seed` draws them when there is a limit."""
        from ..data.defaults import default_images
        from ..data.loading import load_images

        drawn: dict[str, Any] = {"class_names": self.names, "limit": self.limit, "seed": seed, "token": self.token}
        if self.images is None:
            return default_images(processor, **drawn)
        which: dict[str, Any] = {name: getattr(self, name) for name in READ_BY}
        return load_images(self.images, processor, **drawn, **which)


@dataclass(kw_only=True)
class Source(Given):
    """A model and what is given with it."""

    model: ModelName

    def load(self, seed: int, target: str | None = None) -> "tuple[BackdoorRemover, PixelDataset]":
        """The model and the images, of which `seed` draws when there is a limit."""
        from ..models.folders import confirm_labels
        from ..remover import BackdoorRemover

        places = ("text_model", "revision", "subfolder", "variant", "token", "device")
        where: dict[str, Any] = {name: getattr(self, name) for name in places}
        remover = BackdoorRemover.from_pretrained(self.model, **where)
        remover.source.encoder.require_text()
        data = confirm_labels(self.pictures(seed, remover.processor), remover.source.encoder, self.prompts)
        check_target(target, data.class_names)
        return remover, data


def profile_of(reference: str | None, given: Given, config: "RemovalConfig") -> "Profile | None":
    """The profile of a trusted model: read, or made with the pictures and names that are given."""
    from ..stages.reference import Profile

    if reference is None:
        return None
    if os.path.isfile(reference):
        return Profile.load(reference)
    shared = {one.name: getattr(given, one.name) for one in fields(Given)}
    own = dict.fromkeys(("text_model", "revision", "subfolder", "variant"))
    source = Source(**shared | {"model": reference} | own)
    trusted, data = source.load(config.seed)
    return trusted.profile(data, config=config, templates=given.prompts)


def with_options_of(kind: type[Given], function: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of `kind`, which it gets as one object, and its own."""

    def command(**given: Any) -> None:
        source = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        function(source, **given)

    parameters = [*signature(kind).parameters.values(), *list(signature(function).parameters.values())[1:]]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = signature(command).replace(  # type: ignore[attr-defined]
        parameters=[parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    return command


def check_target(target: str | None, names: Sequence[str] | None) -> None:
    """Refuse a target that is not among the class names, as soon as those are known."""
    if target is not None and names is not None and target not in names:
        raise InputError(f"`target`: {target!r} is not among the {len(names)} class names; {nearest(target, names)}.")
