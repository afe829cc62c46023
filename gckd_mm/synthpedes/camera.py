"""The cameras of SynthPedes: what they do to the light that reaches them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.random_stream import RandomStream

Span = tuple[float, float]

# ``Camera.blur`` is given in pixels of an image of this height.
REFERENCE_HEIGHT = 160

# Luma of ITU-R BT.601, the one that JPEG uses.
_LUMA = (0.299, 0.587, 0.114)

# Shares of the noise: grain that the three colours of a pixel have in common, and
# blotches of colour over 2 x 2 pixels, which demosaicing leaves. Their squares add up
# to 1, so that the deviation is the stated one.
_GRAIN, _BLOTCHES = 0.8, 0.6

# No jitter turns an image darker than this factor.
_DARKEST = 0.25


class Camera(NamedTuple):
    """All that one camera does to its images.

    The fields that :func:`photograph` does not read are for those that render the
    scene, frame the person and write the file. The defaults change nothing.

    Attributes:
        scene: Where it hangs, a name of ``scene.SCENES``.
        pitch: Degrees that it looks down, 0 to 40.
        gains: Colour cast, a factor each for red, green and blue.
        brightness: Factor.
        contrast: Factor about mid-grey.
        gamma: Exponent of the tone curve; above 1 darkens the middle tones.
        saturation: Factor; 0 gives grey.
        blur: Standard deviation in pixels of an image 160 high.
        resolution: Share of the pixels kept along each side, 0.3 to 1.
        noise: Standard deviation on the scale of 0 to 255.
        vignette: Share of the light that the corners lose, 0 to 1.
        framing: Standard deviation of the detector's box, share of the height.
        occlusion: Probability that something stands in front of the person.
        lighting: Standard deviation of the brightness between images, a share.
        quality: JPEG quality.
    """

    scene: str = 'street'
    pitch: float = 0.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    brightness: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    blur: float = 0.0
    resolution: float = 1.0
    noise: float = 0.0
    vignette: float = 0.0
    framing: float = 0.0
    occlusion: float = 0.0
    lighting: float = 0.0
    quality: int = 95


class CameraRange(NamedTuple):
    """The cameras of a domain: a (low, high) pair for each field of :class:`Camera`.

    ``scene`` is a tuple of options, ``gains`` a pair each for red, green and blue.
    Both ends of a pair belong to the range.
    """

    scene: tuple[str, ...] = ('street',)
    pitch: Span = (0.0, 0.0)
    gains: tuple[Span, Span, Span] = ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    brightness: Span = (1.0, 1.0)
    contrast: Span = (1.0, 1.0)
    gamma: Span = (1.0, 1.0)
    saturation: Span = (1.0, 1.0)
    blur: Span = (0.0, 0.0)
    resolution: Span = (1.0, 1.0)
    noise: Span = (0.0, 0.0)
    vignette: Span = (0.0, 0.0)
    framing: Span = (0.0, 0.0)
    occlusion: Span = (0.0, 0.0)
    lighting: Span = (0.0, 0.0)
    quality: tuple[int, int] = (95, 95)

    def contains(self, camera: Camera) -> bool:
        """Return whether each field of a camera is within its range."""
        if camera.scene not in self.scene:
            return False
        spans = [*self.gains, *(getattr(self, field) for field in _NUMBERS)]
        values = [*camera.gains, *(getattr(camera, field) for field in _NUMBERS)]
        return all(
            low <= value <= high
            for (low, high), value in zip(spans, values, strict=True)
        )


_NUMBERS = tuple(field for field in Camera._fields if field not in ('scene', 'gains'))


def sample_camera(ranges: CameraRange, stream: RandomStream) -> Camera:
    """Sample a camera, each field uniform within its range.

    Args:
        ranges: The domain's cameras.
        stream: Random numbers; takes one for each number of the camera.

    Returns:
        A camera that ``ranges`` contains.

    Raises:
        InputError: A range is empty.
    """
    if not ranges.scene:
        raise InputError('CameraRange.scene: needs at least one scene, got ()')
    scene = stream.choice(ranges.scene)
    red, green, blue = (_sample(stream, 'gains', span) for span in ranges.gains)
    numbers = {
        field: _sample(stream, field, getattr(ranges, field))
        for field in _NUMBERS
        if field != 'quality'
    }
    low, high = ranges.quality
    if low > high:
        raise InputError(_empty('quality', ranges.quality))
    quality = stream.integer(low, high)
    return Camera(scene=scene, gains=(red, green, blue), quality=quality, **numbers)


def photograph(pixels: np.ndarray, camera: Camera, stream: RandomStream) -> np.ndarray:
    """Take an image.

    The light passes, in this order, the hour's lighting, the lens (vignette, blur), the
    sensor's grid (resolution) and colour cast, the processor (saturation, gamma,
    contrast), noise and rounding. The noise comes last so that its deviation is the
    stated one whatever the other fields are. The result is the same on every machine:
    float32 ``+ - * /`` only, with all that needs more in small float64 tables.

    Args:
        pixels: Light that reaches the camera, (H, W, 3) float32, 0 to 255.
        camera: The camera; the neutral ``Camera()`` only rounds.
        stream: Random numbers of this image.

    Returns:
        The image, (H, W, 3) uint8.

    Raises:
        InputError: ``pixels`` has another shape, or ``camera.resolution`` is not a
            share.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(f'pixels: expected (H, W, 3), got the shape {pixels.shape}')
    if not 0 < camera.resolution <= 1:
        raise InputError(
            f'Camera.resolution must be above 0 and at most 1, got {camera.resolution}'
        )
    height, width, _ = pixels.shape
    jitter = max(_DARKEST, 1.0 + stream.normal(0.0, camera.lighting))
    exposure = camera.brightness * jitter
    light = pixels.astype(np.float32, copy=False) * np.array(
        [gain * exposure for gain in camera.gains], np.float32
    )
    if camera.vignette > 0:
        falloff = _corners(height, width)
        light *= np.float32(1) - np.float32(camera.vignette) * falloff
    if camera.blur > 0:
        light = blur(light, camera.blur * height / REFERENCE_HEIGHT)
    if camera.resolution < 1:
        light = coarsen(light, camera.resolution)
    if camera.saturation != 1:
        light = _saturate(light, camera.saturation)
    if camera.gamma != 1 or camera.contrast != 1:
        light = _develop(light, _tone_curve(camera.gamma, camera.contrast))
    if camera.noise > 0:
        light += np.float32(camera.noise) * _sensor_noise(stream, height, width)
    np.rint(light, out=light)
    np.clip(light, 0, 255, out=light)
    return light.astype(np.uint8)


def blur(pixels: np.ndarray, sd: float) -> np.ndarray:
    """Blur with a Gaussian; the border repeats its last pixel.

    Args:
        pixels: (H, W, C) float32.
        sd: Standard deviation in pixels, above 0.

    Returns:
        (H, W, C) float32.
    """
    half_kernel = _half_gaussian(sd)
    reach = len(half_kernel) - 1
    height, width, _ = pixels.shape
    padded = np.concatenate(
        [pixels[:1]] * reach + [pixels] + [pixels[-1:]] * reach, axis=0
    )
    down = pixels * half_kernel[0]
    for step in range(1, reach + 1):
        pair = padded[reach - step : reach - step + height]
        pair = pair + padded[reach + step : reach + step + height]
        pair *= half_kernel[step]
        down += pair
    padded = np.concatenate(
        [down[:, :1]] * reach + [down] + [down[:, -1:]] * reach, axis=1
    )
    blurred = down * half_kernel[0]
    for step in range(1, reach + 1):
        pair = padded[:, reach - step : reach - step + width]
        pair = pair + padded[:, reach + step : reach + step + width]
        pair *= half_kernel[step]
        blurred += pair
    return blurred


def coarsen(pixels: np.ndarray, share: float) -> np.ndarray:
    """Lose the detail that fewer pixels cannot hold, and keep the size.

    Args:
        pixels: (H, W, C) float32.
        share: Share of the pixels kept along each side.

    Returns:
        (H, W, C) float32, enlarged again bilinearly.
    """
    height, width, _ = pixels.shape
    small = reduce_by_area(
        pixels, max(1, round(height * share)), max(1, round(width * share))
    )
    tall = _resample(small, *_bilinear_taps(small.shape[0], height), axis=0)
    return _resample(tall, *_bilinear_taps(small.shape[1], width), axis=1)


def reduce_by_area(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Reduce an image: a new pixel is the mean over the area that it covers.

    Args:
        pixels: (H, W, C) float32.
        height: New height, at most H.
        width: New width, at most W.

    Returns:
        (height, width, C) float32.
    """
    short = _resample(pixels, *_area_taps(pixels.shape[0], height), axis=0)
    return _resample(short, *_area_taps(pixels.shape[1], width), axis=1)


def _sample(stream: RandomStream, field: str, span: Span) -> float:
    """Sample a number within a span, both ends included."""
    low, high = span
    if low > high:
        raise InputError(_empty(field, span))
    # rounding could lift the sum above the end
    return min(high, stream.uniform(low, high))


def _empty(field: str, span: tuple[float, float]) -> str:
    return f'CameraRange.{field}: expected (low, high) with low <= high, got {span}'


@lru_cache(maxsize=64)
def _half_gaussian(sd: float) -> tuple[np.float32, ...]:
    """Return the middle and the right half of a Gaussian kernel that sums to 1."""
    reach = max(1, math.ceil(2.5 * sd))
    half = [math.exp(-0.5 * (step / sd) ** 2) for step in range(reach + 1)]
    total = half[0]
    for weight in half[1:]:  # not sum(): Python 3.12 rounds it in another way
        total += 2 * weight
    return tuple(np.float32(weight / total) for weight in half)


@lru_cache(maxsize=256)
def _area_taps(size: int, reduced: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and weights, both (taps, reduced), of averaging over areas."""
    step = size / reduced
    edges = [index * step for index in range(reduced)] + [float(size)]
    taps = math.ceil(step) + 1
    indices = np.zeros((taps, reduced), np.intp)
    weights = np.zeros((taps, reduced), np.float32)
    for cell in range(reduced):
        start, end = edges[cell], edges[cell + 1]
        for tap in range(taps):
            source = int(start) + tap
            overlap = min(end, source + 1) - max(start, source)
            if source < size and overlap > 0:
                indices[tap, cell] = source
                weights[tap, cell] = overlap / (end - start)
    return indices, weights


@lru_cache(maxsize=256)
def _bilinear_taps(size: int, enlarged: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and weights, both (2, enlarged), between pixel centres."""
    centres = (np.arange(enlarged) + 0.5) * (size / enlarged) - 0.5
    centres = np.clip(centres, 0, size - 1)
    first = np.floor(centres).astype(np.intp)
    second = np.minimum(first + 1, size - 1)
    share = (centres - first).astype(np.float32)
    return np.stack([first, second]), np.stack([1 - share, share])


def _resample(
    pixels: np.ndarray, indices: np.ndarray, weights: np.ndarray, axis: int
) -> np.ndarray:
    """Return the weighted sums of rows (axis 0) or columns (axis 1)."""
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total = pixels.take(indices[0], axis) * weights[0].reshape(shape)
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        part = pixels.take(index, axis)
        part *= weight.reshape(shape)
        total += part
    return cast(np.ndarray, total)


@lru_cache(maxsize=16)
def _corners(height: int, width: int) -> np.ndarray:
    """Return how much of the vignette each pixel gets: 0 inside, 1 in the corners."""
    rows = ((2 * np.arange(height) + 1) / height - 1)[:, None]
    columns = ((2 * np.arange(width) + 1) / width - 1)[None, :]
    outside = np.clip((rows * rows + columns * columns - 0.6) / 1.4, 0, 1)
    return (outside * outside).astype(np.float32)[:, :, None]


def _saturate(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Scale the distance of each pixel from its grey."""
    red, green, blue = (np.float32(weight) for weight in _LUMA)
    grey = pixels[..., 0] * red + pixels[..., 1] * green + pixels[..., 2] * blue
    grey *= np.float32(1 - factor)
    return cast(np.ndarray, pixels * np.float32(factor) + grey[..., None])


@lru_cache(maxsize=256)
def _tone_curve(gamma: float, contrast: float) -> np.ndarray:
    """Return the developed value of 0 to 255, and the last again, (257,) float32."""
    curve = [
        127.5 + contrast * (255 * (min(value, 255) / 255) ** gamma - 127.5)
        for value in range(257)
    ]
    return np.array(curve, np.float32)


def _develop(pixels: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Look pixels up in a curve, linearly between its entries."""
    light = np.clip(pixels, 0, 255)
    below = light.astype(np.intp)
    light -= below.astype(np.float32)
    light *= (curve[1:] - curve[:-1]).take(below)
    light += curve.take(below)
    return light


def _sensor_noise(stream: RandomStream, height: int, width: int) -> np.ndarray:
    """Return noise of deviation 1, (H, W, 3)."""
    grain = stream.noise(height, width, 1)
    grain *= np.float32(_GRAIN)
    blotches = stream.noise((height + 1) // 2, (width + 1) // 2, 3)
    blotches *= np.float32(_BLOTCHES)
    spread = blotches.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return cast(np.ndarray, spread + grain)
