"""`BackdoorRemover`, the facade: the only file that knows the whole order, scan -> invert -> tune -> verify."""

import copy
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import torch
from huggingface_hub import CommitInfo
from peft import PeftModel
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from .data.loading import ImageSource, load_images
from .data.pixels import PixelDataset
from .data.prompts import TEMPLATES, check_class_names
from .errors import InputError
from .hub.publish import PushOptions
from .hub.result import RemovalResult
from .models.clip import DualEncoder
from .models.evaluation import Metrics, evaluate
from .models.loading import LoadedClip, load_clip, save_clip
from .report.audit import Auditor, data_identity
from .report.report import AuditReport, ModelIdentity, model_identity
from .stages.identification import ScanConfig, ScanResult, TargetIdentifier, Verdict
from .stages.plan import TuningPlan, make_plan
from .triggers import Trigger
from .tuning.arguments import InverTuneArguments, RemovalConfig
from .tuning.callbacks import ProofCallback
from .tuning.trainer import InverTuneTrainer
from .utils.files import write_json


class BackdoorRemover:
    """Finds and removes a backdoor in a CLIP model.

    Args:
        source ([`LoadedClip`]): the model; [`BackdoorRemover.from_pretrained`] makes it.

    Example:

    ```python
    >>> from hf_invertune import BackdoorRemover

    >>> remover = BackdoorRemover.from_pretrained("org/suspicious-clip")
    >>> result = remover.remove("clean_images/", class_names=["cat", "dog", "horse"])
    >>> result.verdict, result.target_name, result.outcome
    >>> result.report.save("audit/")
    >>> remover.save_pretrained("clean-clip/")
    ```
    """

    def __init__(self, source: LoadedClip):
        self.source = source
        self.encoder = DualEncoder(source.model, source.processor)
        self.result: RemovalResult | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str | torch.device | None = None,
    ) -> "BackdoorRemover":
        """Load a model by folder or Hub id; see [`load_clip`] for what it refuses."""
        return cls(load_clip(name_or_path, revision=revision, token=token, device=device))

    @property
    def model(self) -> CLIPModel:
        """The model in float32: as it came, or cleaned once `remove` has run."""
        return self.source.model

    @property
    def processor(self) -> CLIPProcessor:
        return self.source.processor

    def scan(
        self,
        images: ImageSource,
        class_names: Sequence[str] | None = None,
        *,
        config: ScanConfig | None = None,
        templates: Sequence[str] = TEMPLATES,
    ) -> ScanResult:
        """Say whether there is a backdoor, and towards which label.

        Args:
            images: a [`PixelDataset`] or anything that [`load_images`] takes; arbitrary clean pictures.
            class_names (`Sequence[str]`, *optional*): the labels to look at; by default those of the images.
            config ([`ScanConfig`], *optional*): settings.
            templates (`Sequence[str]`, *optional*): prompt templates.
        """
        data, names, head = self._inputs(images, class_names, templates, minimum=8)
        return TargetIdentifier(self.encoder, head, names, config).identify(data.pixels)

    def audit(
        self,
        images: ImageSource,
        class_names: Sequence[str] | None = None,
        *,
        config: ScanConfig | None = None,
        templates: Sequence[str] = TEMPLATES,
    ) -> AuditReport:
        """Scan, and wrap the result in a report; the arguments are those of `scan`."""
        data, names, head = self._inputs(images, class_names, templates, minimum=8)
        config = config or ScanConfig()
        result = TargetIdentifier(self.encoder, head, names, config).identify(data.pixels)
        return AuditReport(
            verdict=result.verdict,
            outcome="scanned",
            model=self._identity(),
            data=data_identity(data, held_out=0),
            scan=result,
            target=result.target,
            target_name=result.target_name,
            settings={"scan": asdict(config)},
            seconds={"scan": result.seconds},
        )

    def invert(
        self,
        images: ImageSource,
        class_names: Sequence[str] | None = None,
        *,
        scan: ScanResult | None = None,
        target: str | int | None = None,
        config: RemovalConfig | None = None,
        templates: Sequence[str] = TEMPLATES,
    ) -> TuningPlan:
        """Invert the target's triggers with the full loss and find the neurons that react to them.

        Args:
            images, class_names, templates: as in `scan`.
            scan ([`ScanResult`], *optional*): where to start from; without it and without `target` a scan runs first.
            target (`str` or `int`, *optional*): the label, by name or index; the scan's when not given.
            config ([`RemovalConfig`], *optional*): settings of inversion and localisation.
        """
        data, names, head = self._inputs(images, class_names, templates, minimum=8)
        config = config or RemovalConfig()
        label = _label(target, names)
        if label is None:
            scan = scan or TargetIdentifier(self.encoder, head, names, config.scan).identify(data.pixels)
            label = _most_suspicious(scan)
        return make_plan(self.encoder, head, names, data.pixels, label, scan, config.inversion, config.localization)

    def evaluate(
        self,
        images: ImageSource,
        class_names: Sequence[str] | None = None,
        *,
        trigger: Trigger | None = None,
        target: str | int | None = None,
        templates: Sequence[str] = TEMPLATES,
    ) -> Metrics:
        """CA of the model as it stands, and ASR and PA of `trigger` towards `target` when given."""
        data, names, head = self._inputs(images, class_names, templates, minimum=1, trigger=trigger)
        label = _label(target, names)
        return evaluate(self.encoder, head, data.pixels, labels=data.labels, trigger=trigger, target=label)

    def remove(
        self,
        images: ImageSource,
        class_names: Sequence[str] | None = None,
        *,
        target: str | int | None = None,
        force: bool = False,
        output_dir: str | Path | None = None,
        resume: bool = False,
        trigger: Trigger | None = None,
        config: RemovalConfig | None = None,
        templates: Sequence[str] = TEMPLATES,
    ) -> RemovalResult:
        """Scan, invert, localise, tune, merge, and verify by scanning again from scratch.

        A model that is not judged backdoored comes back with every weight bit-identical, unless `force` or `target`.

        Args:
            images, class_names, templates: as in `scan`; a share of the images is held out for the proof.
            target (`str` or `int`, *optional*): clean towards this label, whatever the scan concludes.
            force (`bool`, *optional*): clean towards the most suspicious label, whatever the scan concludes.
            output_dir (`str` or `Path`, *optional*): keeps the stages' results and checkpoints in `checkpoints/`.
            resume (`bool`, *optional*): go on from what is there; same model, images and settings only.
            trigger ([`Trigger`], *optional*): the attack's own trigger, when known, measured beside the inverted ones.
            config ([`RemovalConfig`], *optional*): settings.

        Raises:
            InputError: before any long work, when an argument cannot be used.
            FloatingPointError: when a loss is not finite.
        """
        config = config or RemovalConfig()
        if output_dir is None and "tensorboard" in config.report_to and "TENSORBOARD_LOGGING_DIR" not in os.environ:
            raise InputError("`output_dir`: got None; name the folder in which tensorboard shall write its files.")
        minimum = config.minimum_images
        data, names, head = self._inputs(images, class_names, templates, minimum=minimum, trigger=trigger)
        label = _label(target, names)
        held_out, clean = data.split(config.held_out, seed=config.seed)
        identity, seconds = self._identity(), {}
        run = {
            "model": identity.sha256_before,
            "images": data.digest(),
            "class_names": names,
            "templates": list(templates),
            "target": label,
            "config": json.loads(json.dumps(asdict(config))),
        }
        with self._workspace(output_dir, resume, run) as work:
            scan = _stage(
                ScanResult,
                work / "scan",
                lambda: TargetIdentifier(self.encoder, head, names, config.scan).identify(clean.pixels),
            )
            seconds["scan"] = scan.seconds
            report = AuditReport(
                verdict=scan.verdict,
                outcome="unchanged",
                model=identity,
                data=data_identity(data, held_out=len(held_out)),
                scan=scan,
                settings={**asdict(config), "templates": list(templates)},
                seconds=seconds,
            )
            if label is None and (force or scan.verdict is Verdict.BACKDOORED):
                label = _most_suspicious(scan)
            if label is None:
                report.reasons = [f"The scan's verdict is {scan.verdict}, and no `target` was named."]
                report.target, report.target_name = scan.target, scan.target_name
                report.model.sha256_after = identity.sha256_before
                self.result = RemovalResult("unchanged", self.model, self.processor, report)
                return self.result
            begin = time.perf_counter()
            plan = _stage(
                TuningPlan,
                work / "plan",
                lambda: make_plan(
                    self.encoder,
                    head,
                    names,
                    clean.pixels,
                    label,
                    scan,
                    config.inversion,
                    config.localization,
                ),
            )
            seconds["inversion and localization"] = time.perf_counter() - begin
            auditor = Auditor(self.encoder, head, names, held_out, plan, trigger)

            proof = ProofCallback(report, auditor, config)
            begin = time.perf_counter()
            self._tune(clean, held_out, names, templates, plan, config, work, output_dir, resume, proof)
            seconds["tuning"] = time.perf_counter() - begin - seconds["verification"]
        self.result = proof.result
        self.source.model = self.encoder.model = self.result.model
        return self.result

    def save_pretrained(self, folder: str | Path) -> None:
        """Save model and processor in the dtype that the weights came in; see [`save_clip`]."""
        save_clip(self.model, self.processor, self.source.dtype, folder)

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> CommitInfo:
        """Push what the last `remove` handed back; see [`RemovalResult.push_to_hub`].

        Raises:
            InputError: when `remove` has not run, besides the errors of [`RemovalResult.push_to_hub`].
        """
        if self.result is None:
            raise InputError("`push_to_hub`: there is nothing to push yet; call `remove` first.")
        return self.result.push_to_hub(repo_id, **options)

    def _tune(
        self,
        clean: PixelDataset,
        held_out: PixelDataset,
        names: list[str],
        templates: Sequence[str],
        plan: TuningPlan,
        config: RemovalConfig,
        work: Path,
        output_dir: str | Path | None,
        resume: bool,
        proof: ProofCallback,
    ) -> None:
        """Tune, and have the outcome proven; a tuning that fails leaves the model as it came."""
        arguments = InverTuneArguments(
            output_dir=str(work / "tuning"),
            max_steps=config.max_steps,
            learning_rate=config.learning_rate,
            seed=config.seed,
            use_cpu=self.encoder.device.type == "cpu",
            save_strategy="no" if output_dir is None else "steps",
            report_to=config.report_to,
        )
        settings = copy.deepcopy(self.model.config)
        trainer = InverTuneTrainer(
            self.source, arguments, clean, held_out, names, plan=plan, callbacks=[proof], templates=templates
        )
        try:
            trainer.train(resume_from_checkpoint=resume or None)
        finally:
            if isinstance(trainer.model, PeftModel):
                self.source.model = self.encoder.model = trainer.model.unload().requires_grad_(True).eval()
            self.model.config = settings

    def _inputs(
        self,
        images: ImageSource,
        class_names: Sequence[str] | None,
        templates: Sequence[str],
        minimum: int,
        trigger: Trigger | None = None,
    ) -> tuple[PixelDataset, list[str], Tensor]:
        data = load_images(images, self.processor, class_names=class_names, minimum=minimum)
        names = class_names if class_names is not None else data.class_names
        if names is None:
            raise InputError("`class_names`: got None, and the images name no classes; pass the names to look at.")
        checked = list(check_class_names(names))
        if trigger is not None:
            trigger.check_fits(data.pixels)
        return data, checked, self.encoder.zero_shot_head(checked, templates)

    def _identity(self) -> ModelIdentity:
        source = self.source
        return model_identity(source.model, source.name, source.revision, source.dtype, source.license)

    @contextmanager
    def _workspace(self, output_dir: str | Path | None, resume: bool, run: dict[str, Any]) -> Iterator[Path]:
        """Where the stages leave their results: `output_dir`/checkpoints, or a folder that goes away."""
        if output_dir is None:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder)
            return
        work = Path(output_dir) / "checkpoints"
        if resume and (work / "run.json").is_file():
            begun = json.loads((work / "run.json").read_text())
            different = [key for key, value in run.items() if begun[key] != value]
            if different:
                raise InputError(
                    f"`resume`: the run in {work} began with other {', '.join(different)}; repeat its arguments, or "
                    "start anew without `resume`."
                )
        elif work.exists():
            if not (work / "run.json").is_file():
                raise InputError(f"`output_dir`: {work} holds what this tool did not write; move it away.")
            shutil.rmtree(work)
        write_json(work / "run.json", run)
        yield work


def _stage(kind: Any, folder: Path, run: Any) -> Any:
    """The saved result of a stage, or a fresh one, which is saved."""
    if (folder / f"{kind._name()}.json").is_file():
        return kind.load(folder)
    result = run()
    result.save(folder)
    return result


def _label(target: str | int | None, names: Sequence[str]) -> int | None:
    if isinstance(target, str):
        if target not in names:
            raise InputError(f"`target`: {target!r} is not among the {len(names)} class names.")
        return list(names).index(target)
    if target is not None and not 0 <= target < len(names):
        raise InputError(f"`target`: got {target}; it must lie between 0 and {len(names) - 1}.")
    return target


def _most_suspicious(scan: ScanResult) -> int:
    if scan.target is not None:
        return scan.target
    return max(scan.evidence, key=lambda family: family.lead).label
