"""Random changes of a whole batch at once, cheap enough for two cores.

All randomness comes from torch's global generator; the caller seeds it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor
from torchvision.io import decode_jpeg, encode_jpeg

from training.recipe import AugmentRecipe

JPEG_QUALITY = (40, 95)
ERASED_SIDE = (0.12, 0.35)  # of the picture's side


def augment_pictures(pictures: Tensor, crop: int, recipe: AugmentRecipe) -> Tensor:
    """Crop and change a batch of pictures.

    Args:
        pictures: uint8 (n, 3, h, w), or with further channels (masks, numbers of words), which are moved alike, from
            the nearest pixel, and keep their values.
        crop: side of the random crop in pixels, at most h and w.
        recipe: what to do and how often.

    Returns:
        float32 (n, channels, crop, crop) in [0, 1], contiguous.
    """
    moved = _random_affine(pictures, recipe)
    cut = _random_crop(moved, crop, recipe.shift)
    flipped = _chosen(len(cut), recipe.flip)
    cut[flipped] = cut[flipped].flip(3)
    cut, masks = cut[:, :3], cut[:, 3:]
    for index in torch.nonzero(_chosen(len(cut), recipe.jpeg)).flatten().tolist():
        cut[index] = _recompress(cut[index])
    pixels = cut.float().div_(255)
    if recipe.colour:
        pixels = _jitter_colour(pixels, recipe.colour)
    pixels = _random_blur(pixels, recipe.blur)
    pixels = _random_sharpen(pixels, recipe.sharpen)
    pixels = _random_noise(pixels, recipe.noise, recipe.noise_std)
    pixels = _random_erase(pixels, recipe.erase)
    pixels = pixels.clamp_(0, 1).contiguous()
    return torch.cat([pixels, masks.float().div_(255)], 1) if masks.shape[1] else pixels


def mix_batch(pixels: Tensor, targets: Tensor, recipe: AugmentRecipe) -> tuple[Tensor, Tensor]:
    """Blend a batch with a permutation of itself: mixup, CutMix or neither.

    Sources: mixup, Zhang et al. 2018; CutMix, Yun et al. 2019.

    Args:
        pixels: float32 (n, 3, h, w).
        targets: float32 (n, classes), rows summing to 1.
        recipe: probabilities of the two.

    Returns:
        Pixels and targets mixed by the same shares.
    """
    draw = float(torch.rand(()))
    if draw >= recipe.mixup + recipe.cutmix:
        return pixels, targets
    other = torch.randperm(len(pixels))
    share = float(torch.distributions.Beta(recipe.mix_alpha, recipe.mix_alpha).sample())
    if draw < recipe.mixup:
        mixed = pixels * share + pixels[other] * (1 - share)
    else:
        side = pixels.shape[-1]
        cut = round(side * (1 - share) ** 0.5)
        top, left = (int(torch.randint(0, side - cut + 1, ())) for _ in range(2))
        mixed = pixels.clone()
        mixed[:, :, top : top + cut, left : left + cut] = pixels[other, :, top : top + cut, left : left + cut]
        share = 1 - (cut / side) ** 2
    return mixed, targets * share + targets[other] * (1 - share)


def _chosen(count: int, probability: float) -> Tensor:
    return torch.rand(count) < probability


def _random_affine(pictures: Tensor, recipe: AugmentRecipe) -> Tensor:
    """Rotate and zoom some pictures; the others keep their exact pixels, since resampling blurs the traces sought."""
    chosen = _chosen(len(pictures), recipe.affine)
    count = int(chosen.sum())
    if not count:
        return pictures
    angles = (torch.rand(count) * 2 - 1) * torch.pi * recipe.degrees / 180
    zoom = 1 + (torch.rand(count) * 2 - 1) * recipe.scale
    cosine, sine, zero = angles.cos() / zoom, angles.sin() / zoom, torch.zeros(count)
    theta = torch.stack([torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1)
    source = pictures[chosen].float()
    grid = F.affine_grid(theta, list(source.shape), align_corners=False)
    moved = pictures.clone()
    for channels, mode in ((slice(3), "bilinear"), (slice(3, None), "nearest")):
        warped = F.grid_sample(source[:, channels], grid, mode=mode, padding_mode="reflection", align_corners=False)
        moved[chosen, channels] = warped.round_().clamp_(0, 255).to(torch.uint8)
    return moved


def _random_crop(pictures: Tensor, crop: int, shift: int) -> Tensor:
    if shift:
        pictures = F.pad(pictures.float(), (shift,) * 4, mode="reflect").to(torch.uint8)
    height, width = pictures.shape[-2:]
    tops = torch.randint(0, height - crop + 1, (len(pictures),)).tolist()
    lefts = torch.randint(0, width - crop + 1, (len(pictures),)).tolist()
    return torch.stack([one[:, y : y + crop, x : x + crop] for one, y, x in zip(pictures, tops, lefts, strict=True)])


def _recompress(picture: Tensor) -> Tensor:
    quality = int(torch.randint(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1, ()))
    recompressed: Tensor = decode_jpeg(encode_jpeg(picture, quality))
    return recompressed


def _jitter_colour(pixels: Tensor, strength: float) -> Tensor:
    """Brightness, contrast, saturation and a gain per channel, each drawn per picture."""
    count = len(pixels)

    def draw(channels: int, spread: float) -> Tensor:
        return torch.randn(count, channels, 1, 1).clamp_(-2, 2) * spread * strength

    grey = pixels.mean(1, keepdim=True)
    saturated = grey + (pixels - grey) * (1 + draw(1, 0.3))
    middle = saturated.mean((1, 2, 3), keepdim=True)
    contrasted = middle + (saturated - middle) * (1 + draw(1, 0.25))
    return contrasted * (1 + draw(3, 0.08)) + draw(1, 0.1)


def _random_blur(pixels: Tensor, probability: float) -> Tensor:
    """Gaussian 5x5 blur with a standard deviation of 0.4 to 1.2 px, one for the batch's chosen pictures."""
    chosen = _chosen(len(pixels), probability)
    if chosen.any():
        pixels[chosen] = _blur(pixels[chosen], 0.4 + 0.8 * float(torch.rand(())))
    return pixels


def _random_sharpen(pixels: Tensor, probability: float) -> Tensor:
    """Unsharp mask: add 0.2 to 1.5 times what a Gaussian blur of 1 px takes away, drawn per picture."""
    chosen = _chosen(len(pixels), probability)
    if chosen.any():
        amount = 0.2 + 1.3 * torch.rand(int(chosen.sum()), 1, 1, 1)
        pixels[chosen] += amount * (pixels[chosen] - _blur(pixels[chosen], 1.0))
    return pixels


def _blur(pixels: Tensor, sigma: float) -> Tensor:
    """(n, 3, h, w) after a Gaussian 5x5 blur; the border is mirrored."""
    line = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / sigma) ** 2)
    kernel = torch.outer(line, line)
    weight = (kernel / kernel.sum()).expand(3, 1, 5, 5)
    return F.conv2d(F.pad(pixels, (2, 2, 2, 2), mode="reflect"), weight, groups=3)


def _random_noise(pixels: Tensor, probability: float, largest_std: float) -> Tensor:
    chosen = _chosen(len(pixels), probability)
    if not chosen.any():
        return pixels
    std = torch.rand(int(chosen.sum()), 1, 1, 1) * largest_std
    pixels[chosen] += torch.randn_like(pixels[chosen]) * std
    return pixels


def _random_erase(pixels: Tensor, probability: float) -> Tensor:
    """Grey out one rectangle of some pictures (random erasing, Zhong et al. 2020)."""
    side = pixels.shape[-1]
    for index in torch.nonzero(_chosen(len(pixels), probability)).flatten().tolist():
        low, high = ERASED_SIDE
        height, width = (int(side * (low + (high - low) * float(torch.rand(())))) for _ in range(2))
        top, left = int(torch.randint(0, side - height + 1, ())), int(torch.randint(0, side - width + 1, ()))
        pixels[index, :, top : top + height, left : left + width] = float(torch.rand(()))
    return pixels
