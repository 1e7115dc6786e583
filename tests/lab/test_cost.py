import copy

import torch

from hf_invertune.lab.arena.cost import measure_cost


def test_pictures_are_counted_forward_and_backward(encoder, pixels):
    outside = encoder.embed_images(pixels)
    with measure_cost() as cost:
        with torch.no_grad():
            encoder.embed_images(pixels[:5])
        encoder.embed_images(pixels[:7]).sum().backward()
        encoder.embed_images(pixels[:3])  # no gradient comes back through these
        outside.sum().backward()
    assert (cost.forward, cost.backward) == (15, 7)
    encoder.embed_images(pixels)
    assert cost.forward == 15


def test_a_gradient_that_only_goes_to_the_pixels_counts(encoder, pixels):
    pixels.requires_grad_()
    with measure_cost() as cost, encoder.frozen():
        encoder.embed_images(pixels).sum().backward()
    assert (cost.forward, cost.backward) == (12, 12)


def test_a_gradient_that_stops_at_a_hidden_state_counts_once(encoder, pixels):
    with measure_cost() as cost:
        sum(hidden.sum() for hidden in encoder.activations(pixels)).backward()
        encoder.activations(pixels)[0].sum().backward()
    assert (cost.forward, cost.backward) == (24, 24)


def test_a_copy_of_the_model_counts_too(encoder, pixels):
    with measure_cost() as cost:
        copy.deepcopy(encoder).embed_images(pixels)
    assert (cost.forward, cost.backward) == (12, 0)


def test_the_peak_is_that_of_the_block():
    size = 64 << 20
    torch.ones(4 * size, dtype=torch.uint8)  # larger, and before
    with measure_cost() as cost:
        torch.ones(size, dtype=torch.uint8)
    assert 0.9 * size < cost.peak_memory < 2 * size
    assert cost.seconds > 0
