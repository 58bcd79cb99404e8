"""What defences do to answers, on tensors whose last axis is the class or the token; differentiable where marked."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt64
from scipy.special import ndtri
from torch import Tensor

from repromia.targets.drawn import uniform

LEAST = float(np.log(np.float64(1e-45)))  # of a probability that was rounded to 0 (as in LiRA's code)
TURNS = 100.0  # how often the noise on an answer runs through all its values while the answer moves by 1
_TAIL = 1e-4  # of the uniform numbers behind Gaussian ones: none beyond 3.7 standard deviations


def tempered(logs: Tensor, t: float) -> Tensor:
    """log of the normalised p^(1/t); differentiable."""
    return torch.log_softmax(logs / t, -1)


def top(logs: Tensor, k: int) -> Tensor:
    """log p of the k largest, for the others an equal share of what is left; differentiable."""
    count = logs.shape[-1]
    logs = torch.log_softmax(logs, -1)
    if k >= count:
        return logs
    told = torch.zeros_like(logs, dtype=torch.bool).scatter_(-1, logs.topk(k, dim=-1).indices, True)
    left = logs.masked_fill(told, -torch.inf).logsumexp(-1, keepdim=True) - float(np.log(count - k))
    return torch.where(told, logs, left)


def rounded(values: Tensor, digits: int) -> Tensor:
    """Rounded, with the gradient of what was rounded (straight through; Athalye et al. 2018, arXiv 1802.00420)."""
    return values + (values.detach().round(decimals=digits) - values.detach())


def rounded_probabilities(logs: Tensor, digits: int) -> Tensor:
    """log of probabilities rounded and normalised again; 0 becomes `LEAST`. Gradients as of `rounded`."""
    plain = torch.log_softmax(logs, -1)
    found = plain.detach().exp().round(decimals=digits).log().clamp(min=LEAST)
    return plain + (torch.log_softmax(found, -1) - plain).detach()


def gaussian(lots: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Standard normal numbers from uniform ones."""
    found: Float[np.ndarray, "*shape"] = ndtri(np.clip(lots, _TAIL, 1 - _TAIL))
    return found


def noise_by_code(code: UInt64[np.ndarray, " record"], columns: int) -> Float[np.ndarray, "record column"]:
    """Standard normal noise, drawn by the code of each record."""
    return np.stack([gaussian(uniform(code, column)) for column in range(columns)], axis=1)


def noise_by_answer(answers: Float[np.ndarray, "*shape"], phase: Float[np.ndarray, "*#shape"]) -> np.ndarray:
    """Noise that is a fixed function of the answer: continuous, so that what batch mates change in an answer's last
    digits changes it little, and so steep that another question gets other noise. phase: in [0, 1)."""
    lots = np.abs(2 * np.mod(phase + TURNS * answers.astype(np.float64), 1.0) - 1)
    return gaussian(lots)
