"""`BackdoorRemover`, the facade: the only file that knows the whole order, scan -> invert -> tune -> prove."""

import copy
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Unpack

from huggingface_hub import CommitInfo
from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin

from .data.loading import ImageSource
from .data.pixels import PixelDataset
from .errors import InputError
from .hub.publish import PushOptions
from .hub.result import RemovalResult
from .models.classifier import ZeroShotClassifier
from .models.evaluation import Metrics, evaluate
from .models.given import load_given
from .models.loading import LoadedModel, LoadOptions, load_model
from .report.report import AuditReport
from .stages.configs import RemovalConfig
from .stages.cost import Estimate, estimate_scan
from .stages.identification import ScanResult, TargetIdentifier, scan_without_labels
from .stages.inputs import DataIdentity, Inputs, ModelIdentity
from .stages.plan import TuningPlan, make_plan
from .stages.reading import check_reading
from .stages.reference import Profile
from .stages.task import Task
from .stages.verdict import treated
from .triggers import Trigger
from .tuning.arguments import InverTuneArguments
from .tuning.proof import ProofCallback
from .tuning.trainer import InverTuneTrainer
from .utils.seeds import stream
from .utils.workspace import brought, kept, workspace


logger = logging.getLogger(__name__)

SCAN_MINIMUM = 8
"""Fewest images that a scan accepts."""


class BackdoorRemover:
    """Finds and removes a backdoor in a model with an image tower and a text tower.

    Args:
        source ([`LoadedModel`]): the model; [`BackdoorRemover.from_pretrained`] makes it.

    Example:

    ```python
    >>> from hf_invertune import BackdoorRemover

    >>> remover = BackdoorRemover.from_pretrained("org/suspicious-clip")
    >>> scan = remover.scan("clean_images/", class_names=["cat", "dog", "horse"])
    >>> result = remover.remove("clean_images/", class_names=["cat", "dog", "horse"], scan=scan)
    >>> result.verdict, result.target_name, result.outcome
    >>> result.report.save("audit/")
    >>> remover.save_pretrained("clean-clip/")
    ```
    """

    def __init__(self, source: LoadedModel):
        self.source = source
        self.result: RemovalResult | None = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: Unpack[LoadOptions]) -> "BackdoorRemover":
        """Load a model by folder, Hub id or the address of its page; the options are those of [`load_model`]."""
        return cls(load_model(name_or_path, **options))

    @property
    def model(self) -> PreTrainedModel:
        """The model in float32: as it came, or cleaned once `remove` has run."""
        return self.source.model

    @property
    def processor(self) -> ProcessorMixin:
        return self.source.processor

    def scan(
        self,
        images: ImageSource | None = None,
        class_names: Sequence[str] | None = None,
        *,
        config: RemovalConfig | None = None,
        templates: Sequence[str] | None = None,
        reference: Profile | str | Path | None = None,
    ) -> ScanResult:
        """Say whether there is a backdoor, and towards which label; of a model that reads no names, no more than whether.

        The images that a removal would hold out for its proof are left alone, so that `remove` can go on from the result.

        Args:
            images (*optional*): a [`PixelDataset`] or anything that [`load_images`] takes; arbitrary clean pictures. By
                default 256 of COCO, streamed from the Hub.
            class_names (`Sequence[str]`, *optional*): the labels to look at; by default those of the images, or else
                ImageNet-1k's 1,000.
            config ([`RemovalConfig`], *optional*): settings.
            templates (`Sequence[str]`, *optional*): prompt templates; by default a short ensemble in the language of the
                model's family, with ImageNet's names the one that CLIP's authors chose for them.
            reference ([`Profile`], `str` or `Path`, *optional*): a trusted model over the same labels, of any make: what is
                easy by nature, there as here, then counts for nothing. Its [`profile`], the file of one, or a folder or Hub
                id to make one of first, with the same images.

        Raises:
            InputError: names, templates or a reference for an image tower that came without a text tower.
            CannotJudgeError: when the model reads the labels no better than chance, or all unlabelled pictures alike.
        """
        if self.source.encoder.reads_text or reference is not None:
            return self._scan(self._task(images, class_names, templates, config, SCAN_MINIMUM, reference))
        config = config or RemovalConfig()
        data, _, _ = load_given(self.source.encoder, images, class_names, templates, SCAN_MINIMUM)
        _, clean, inputs = self._apart(data, config)
        result = scan_without_labels(self.source.encoder, clean.pixels, config.scan, config.seed)
        return self._scanned(result, inputs)

    def profile(
        self,
        images: ImageSource | None = None,
        class_names: Sequence[str] | None = None,
        *,
        config: RemovalConfig | None = None,
        templates: Sequence[str] | None = None,
    ) -> Profile:
        """Scan a model that is trusted, to hold others against what is easy in it by nature; the arguments are `scan`'s.

        It says what its own verdict was: a profile of a backdoored model would hide the same backdoor elsewhere.
        """
        self.source.encoder.require_text()
        scan = self.scan(images, class_names, config=config, templates=templates)
        assert scan.inputs is not None
        return Profile(
            version=version("hf_invertune"),
            inputs=replace(scan.inputs, data=replace(scan.inputs.data, skipped=[])),
            verdict=scan.verdict,
            class_names=scan.class_names,
            templates=scan.templates,
            config=scan.config,
            scores={family.family: family.scores for family in scan.evidence},
            concentrations={place.family: place.concentration for place in reversed(scan.gatherings)},
        )

    def estimate(
        self,
        images: ImageSource | None = None,
        class_names: Sequence[str] | None = None,
        *,
        config: RemovalConfig | None = None,
        templates: Sequence[str] | None = None,
    ) -> Estimate:
        """What a scan with these arguments, which are those of `scan`, would cost on this device."""
        config = config or RemovalConfig()
        data, names, templates = load_given(self.source.encoder, images, class_names, templates, SCAN_MINIMUM)
        clean = len(data) - round(config.audit.held_out * len(data))
        return estimate_scan(self.source.encoder, config.scan, clean, data.pixels.shape[-2:], names, templates)

    def invert(
        self,
        images: ImageSource | None = None,
        class_names: Sequence[str] | None = None,
        *,
        scan: ScanResult | str | Path | None = None,
        target: str | int | None = None,
        config: RemovalConfig | None = None,
        templates: Sequence[str] | None = None,
        reference: Profile | str | Path | None = None,
    ) -> TuningPlan:
        """Invert the target's triggers with the full loss and find the neurons that react to them.

        Args:
            images, class_names, config, templates, reference: as in `scan`.
            scan ([`ScanResult`], `str` or `Path`, *optional*): where to start from, or the folder that holds it; without
                it and without `target` a scan runs first.
            target (`str` or `int`, *optional*): the label, by name or index; the scan's when not given.
        """
        task = self._task(images, class_names, templates, config, SCAN_MINIMUM, reference)
        label, earlier = task.classifier.label_of(target), self._earlier_scan(scan, task)
        task = task if earlier is None else task.beside(earlier.reference)
        if label is None:
            earlier = earlier or self._scan(task)
            label = earlier.suspect
        return self._plan(task, label, earlier)

    def evaluate(
        self,
        images: ImageSource | None = None,
        class_names: Sequence[str] | None = None,
        *,
        trigger: Trigger | None = None,
        target: str | int | None = None,
        templates: Sequence[str] | None = None,
    ) -> Metrics:
        """CA of the model as it stands, and ASR and PA of `trigger` towards `target` when given."""
        self.source.encoder.require_text()
        data, names, templates = load_given(self.source.encoder, images, class_names, templates, minimum=1)
        classifier = ZeroShotClassifier(self.source.encoder, names, templates)
        if trigger is not None:
            trigger.check_fits(data.pixels)
        label = classifier.label_of(target)
        return evaluate(classifier, data.pixels, labels=data.labels, trigger=trigger, target=label)

    def remove(
        self,
        images: ImageSource | None = None,
        class_names: Sequence[str] | None = None,
        *,
        scan: ScanResult | str | Path | None = None,
        plan: TuningPlan | str | Path | None = None,
        target: str | int | None = None,
        force: bool = False,
        output_dir: str | Path | None = None,
        resume: bool = False,
        trigger: Trigger | None = None,
        config: RemovalConfig | None = None,
        templates: Sequence[str] | None = None,
        reference: Profile | str | Path | None = None,
    ) -> RemovalResult:
        """Scan, invert, localise, tune, merge, and prove it by measuring and scanning again from scratch.

        A model that is judged clean comes back with every weight bit-identical, unless `force`, `target` or `plan` says
        otherwise; so does an inconclusive one with `config.treat="backdoored"`.

        Args:
            images, class_names, config, templates, reference: as in `scan`; a share of the images is held out for the proof.
            scan ([`ScanResult`], `str` or `Path`, *optional*): what `scan` gave for this model and these images, or the
                folder that holds it; a scan runs when not given.
            plan ([`TuningPlan`], `str` or `Path`, *optional*): what `invert` gave, likewise.
            target (`str` or `int`, *optional*): clean towards this label, whatever the scan concludes.
            force (`bool`, *optional*): clean towards the most suspicious label, whatever the scan concludes.
            output_dir (`str` or `Path`, *optional*): keeps the stages' results and checkpoints in `checkpoints/`.
            resume (`bool`, *optional*): go on from what is there; same model, images and settings only.
            trigger ([`Trigger`], *optional*): the attack's own trigger, when known, measured beside the inverted ones.

        Raises:
            InputError: before any long work, when an argument cannot be used.
            CannotJudgeError: as in `scan`, where no scan is brought along.
            FloatingPointError: when a loss is not finite.
        """
        config = config or RemovalConfig()
        if (
            output_dir is None
            and "tensorboard" in (config.tuning.report_to or [])
            and "TENSORBOARD_LOGGING_DIR" not in os.environ
        ):
            raise InputError("`output_dir`: got None; name the folder in which tensorboard shall write its files.")
        task = self._task(images, class_names, templates, config, config.audit.minimum_images, reference)
        if trigger is not None:
            trigger.check_fits(task.data.pixels)
        label, earlier = task.classifier.label_of(target), self._earlier_scan(scan, task)
        task = task if earlier is None else task.beside(earlier.reference)
        given = None if plan is None else brought(TuningPlan, plan, "plan")
        if given is not None:
            task.check("plan", given.inputs, given.class_names)
            if label is not None and label != given.target:
                raise InputError(f"`target`: got {target!r}, and the plan leads to label {given.target}.")
            label = given.target
        with workspace(output_dir, resume, task.run(label)) as work:
            found = kept(ScanResult, work / "scan", lambda: earlier or self._scan(task))
            if label is None and (force or treated(found.verdict, config)):
                label = found.suspect
            if label is None:
                self.result = RemovalResult(AuditReport("unchanged", found, config=config), self.source)
                return self.result
            begin = time.perf_counter()
            made = kept(TuningPlan, work / "plan", lambda: given or self._plan(task, label, found))
            seconds = {"inversion and localization": time.perf_counter() - begin}
            proof = ProofCallback(found, trigger)
            self._tune(task, made, work, output_dir, resume, proof)
        assert proof.result is not None
        self.result = proof.result
        self.result.report.seconds = seconds | self.result.report.seconds
        self.source = self.result.cleaned
        logger.info("Proof: %s", " ".join([f"{self.result.outcome}.", *self.result.report.reasons]))
        return self.result

    def save_pretrained(self, folder: str | Path, format: str | None = None) -> None:
        """Save model and processor in the dtype that the weights came in; see [`LoadedModel.save_pretrained`]."""
        self.source.save_pretrained(folder, format)

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> CommitInfo:
        """Push what the last `remove` handed back; see [`RemovalResult.push_to_hub`].

        Raises:
            InputError: when `remove` has not run, besides the errors of [`RemovalResult.push_to_hub`].
        """
        if self.result is None:
            raise InputError("`push_to_hub`: there is nothing to push yet; call `remove` first.")
        return self.result.push_to_hub(repo_id, **options)

    def _task(
        self,
        images: ImageSource | None,
        class_names: Sequence[str] | None,
        templates: Sequence[str] | None,
        config: RemovalConfig | None,
        minimum: int,
        reference: Profile | str | Path | None = None,
    ) -> Task:
        config = config or RemovalConfig()
        self.source.encoder.require_text()
        if isinstance(reference, (str, Path)) and os.path.isfile(reference):
            reference = Profile.load(reference)
        data, names, templates = load_given(self.source.encoder, images, class_names, templates, minimum)
        classifier = ZeroShotClassifier(self.source.encoder, names, templates)
        held_out, clean, inputs = self._apart(data, config)
        if isinstance(reference, (str, Path)):
            trusted = BackdoorRemover.from_pretrained(reference)
            reference = trusted.profile(images, names, config=config, templates=templates)
        return Task(classifier, data, clean, held_out, inputs, config).beside(reference)

    def _apart(self, data: PixelDataset, config: RemovalConfig) -> tuple[PixelDataset, PixelDataset, Inputs]:
        """The images of the proof and those of the work, and what there is to know of them and the model."""
        held_out, clean = data.split(config.audit.held_out, seed=stream(config.seed, "split"))
        return held_out, clean, Inputs(ModelIdentity.of(self.source), DataIdentity.of(data, len(held_out)))

    def _scan(self, task: Task) -> ScanResult:
        config = task.config
        check_reading(task.classifier, task.clean, config.scan)
        identifier = TargetIdentifier(task.classifier, config.scan, config.seed, task.reference)
        return self._scanned(identifier.identify(task.clean.pixels), task.inputs)

    def _scanned(self, result: ScanResult, inputs: Inputs) -> ScanResult:
        result.inputs = inputs
        towards = f", towards {result.target_name!r}" if result.target is not None else ""
        logger.info("Scan: %s%s, in %.0f s.", result.verdict, towards, result.seconds)
        return result

    def _plan(self, task: Task, label: int, scan: ScanResult | None) -> TuningPlan:
        plan = make_plan(task.classifier, task.clean.pixels, label, scan, task.config)
        plan.inputs = task.inputs
        layers = ", ".join(map(str, plan.critical.layers))
        logger.info("Inversion: %d trigger(s); critical layers %s.", len(plan.inverted), layers)
        return plan

    def _earlier_scan(self, scan: ScanResult | str | Path | None, task: Task) -> ScanResult | None:
        """A scan brought along, made sure that it is of this model and these images."""
        if scan is None:
            return None
        if isinstance(scan, (str, Path)) and (Path(scan) / "report.json").is_file():
            scan = AuditReport.load(scan).scan
        result = brought(ScanResult, scan, "scan")
        task.check_scan(result)
        return result

    def _tune(
        self,
        task: Task,
        plan: TuningPlan,
        work: Path,
        output_dir: str | Path | None,
        resume: bool,
        proof: ProofCallback,
    ) -> None:
        """Tune, and have the outcome proven; a tuning that fails leaves the model as it came."""
        config = task.config
        arguments = InverTuneArguments(
            output_dir=str(work / "tuning"),
            seed=stream(config.seed, "tuning"),
            use_cpu=self.source.encoder.device.type == "cpu",
            save_strategy="no" if output_dir is None else "steps",
            **asdict(config.tuning),
        )
        settings = copy.deepcopy(self.model.config)
        trainer = InverTuneTrainer(
            self.source,
            arguments,
            task.clean,
            task.held_out,
            task.classifier.class_names,
            plan=plan,
            callbacks=[proof],
            templates=task.classifier.templates,
            config=config,
        )
        try:
            trainer.train(resume_from_checkpoint=resume or None)
        finally:
            if isinstance(trainer.model, PeftModel):
                self.source.encoder.model = trainer.model.unload().requires_grad_(True).eval()
            self.model.config = settings
