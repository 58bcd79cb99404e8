"""What a denoiser answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from repromia.errors import AttackError, TargetError


@dataclass(frozen=True)
class DenoiseSignals:
    """Figures of a denoiser's answers, one row a record and one column an evaluation.

    What an answer is compared with depends on how the denoiser was asked (`repromia.programs.denoising`): the noise
    that was added, its own prediction at the clean image, or nothing.

    t: timestep index of each evaluation, counted from the clean image; draw: which noise, -1 for none and -2 for
    the model's own.
    square, fourth: mean over pixels and channels of the second and fourth power of the deviation.
    """

    t: Int[np.ndarray, " evaluation"]
    draw: Int[np.ndarray, " evaluation"]
    square: Float[np.ndarray, "record evaluation"]
    fourth: Float[np.ndarray, "record evaluation"]

    def __len__(self) -> int:
        return len(self.square)

    def __post_init__(self) -> None:
        for name in ("square", "fourth"):
            broken = ~np.isfinite(getattr(self, name)).all(axis=1)
            if broken.any():
                raise TargetError(
                    "The denoiser answered with numbers that are not finite.",
                    expected=f"a finite {name} at every timestep",
                    found=f"{int(broken.sum())} of {len(broken)} records",
                    hint="check the weights, or load them in float32 (--dtype float32)",
                )

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> DenoiseSignals:
        """The signals of these records, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(self, square=self.square[index], fourth=self.fourth[index])

    def by_timestep(self, values: Float[np.ndarray, "record evaluation"]) -> Float[np.ndarray, "record timestep"]:
        """Mean over the draws of each timestep, timesteps in the order of `timesteps`."""
        return np.stack([values[:, self.t == one].mean(axis=1) for one in self.timesteps], axis=1)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Different timesteps in the order asked."""
        return tuple(dict.fromkeys(int(one) for one in self.t))


@dataclass(frozen=True)
class GradientSignals:
    """Size of the gradient of a model's loss on each record, one row a record and one column a weight tensor.

    t: timestep index of each evaluation behind a row. norms: L2, 0 where the loss does not depend on the tensor.
    """

    t: Int[np.ndarray, " evaluation"]
    norms: Float[np.ndarray, "record tensor"]

    def __len__(self) -> int:
        return len(self.norms)

    def __post_init__(self) -> None:
        broken = ~np.isfinite(self.norms).all(axis=1)
        if broken.any():  # half precision overflows backwards before it does forwards: no fault of the target
            raise AttackError(
                "The model's gradients are not finite.",
                expected="a finite norm for every weight tensor",
                found=f"{int(broken.sum())} of {len(broken)} records",
                hint="load the weights in float32 (--dtype float32)",
            )

    def take(self, rows: Sequence[int] | Int[np.ndarray, " row"]) -> GradientSignals:
        """The signals of these records, in this order."""
        return replace(self, norms=self.norms[np.asarray(rows, dtype=np.int64)])
