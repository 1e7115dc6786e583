"""What a verb is given to work with, and what it takes by default: pictures, names and prompt templates."""

from collections.abc import Sequence

from ..data.defaults import default_images, default_vocabulary
from ..data.loading import ImageSource, load_images
from ..data.pixels import PixelDataset
from .encoder import DualEncoder
from .folders import confirm_labels


def load_given(
    encoder: DualEncoder,
    images: ImageSource | None,
    class_names: Sequence[str] | None,
    templates: Sequence[str] | None,
    minimum: int,
) -> tuple[PixelDataset, Sequence[str], Sequence[str]]:
    """Pictures, names and templates; no names and no templates for a model that reads none.

    Args:
        encoder ([`DualEncoder`]): the model.
        images (*optional*): anything that [`load_images`] takes; by default pictures of COCO.
        class_names (`Sequence[str]`, *optional*): by default those of the images, or else ImageNet-1k's.
        templates (`Sequence[str]`, *optional*): by default those of the model's family, or those of ImageNet's names.
        minimum (`int`): fewest images.

    Raises:
        InputError: names or templates for a model that reads none, besides the errors of [`load_images`].
    """
    if class_names is not None or templates is not None:
        encoder.require_text()
    images = default_images(encoder.processor) if images is None else images
    data = load_images(images, encoder.processor, class_names=class_names, minimum=minimum)
    data = confirm_labels(data, encoder, templates)
    if not encoder.reads_text:
        return data, [], []
    names, usual = class_names or data.class_names, encoder.templates
    if names is None:
        names, usual = default_vocabulary()
    return data, names, usual if templates is None else templates
