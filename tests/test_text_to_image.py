"""A whole audit of tiny text-to-image pipelines: conditional, latent, and as a flow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_models import SIZE, own, tiny, with_lora
from test_cli import repromia

RECORDS = 40  # a side
CHEAP = ("--fit=0.3", "--select=0.3", "--bootstrap=200", "--program-permutations=1", "--fprs=0.2")


def images(folder: Path, captions: bool) -> None:
    """train/ and heldout/ as a user has them, with a caption beside each image."""
    generator = np.random.default_rng(0)
    for side in ("train", "heldout"):
        (folder / side).mkdir()
        for row in range(RECORDS):
            pixels = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / side / f"{row}.png")
            if captions:
                (folder / side / f"{row}.txt").write_text("a cat" if row % 2 else "two dogs and a bird")


@pytest.mark.parametrize("name", ["sd1", pytest.param("sd3", marks=pytest.mark.slow)])
def test_a_text_to_image_pipeline_is_audited(name: str, tmp_path: Path) -> None:
    images(tmp_path, captions=True)
    tiny(name).save_pretrained(tmp_path / "pipeline")
    attacks = "naive:t=100:draws=1,sima:t=50,clid:t=100:draws=1,clid:prompts=shuffled:t=100:draws=1,shift_contrast"
    done = repromia(
        *("audit", "--model", "pipeline", "--members", "train", "--nonmembers", "heldout", "--out", "audit"),
        *("--attacks", attacks, *CHEAP),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads((tmp_path / "audit" / "result.json").read_text())
    assert result["modality"] == "diffusion"
    assert result["target"]["conditional"]
    assert {row["name"] for row in result["attacks"]} >= {"clid:t=100:draws=1", "shift_contrast"}
    assert "captions" in {one["name"] for one in result["blind"]}


def test_a_conditional_pipeline_without_captions_is_refused(tmp_path: Path) -> None:
    images(tmp_path, captions=False)
    tiny("sd1").save_pretrained(tmp_path / "pipeline")
    done = repromia(
        *("audit", "--model", "pipeline", "--members", "train", "--nonmembers", "heldout", "--out", "audit"),
        *CHEAP,
        folder=tmp_path,
    )
    assert done.returncode == 2
    assert "caption" in done.stderr


def test_lora_brings_its_base_as_the_reference(tmp_path: Path) -> None:
    import repromia as package

    images(tmp_path, captions=True)
    target = package.diffusion_model(with_lora(own("sd1")))
    records = package.load_records(tmp_path / "train", tmp_path / "heldout")
    settings = {"fit": 0.3, "select": 0.3, "bootstrap": 200, "fprs": (0.2,)}
    result = package.audit(target, records, attacks=("naive:t=100:draws=1", "reference:t=100:draws=1"), **settings)
    assert result.reference is not None
    assert {row.name for row in result.null_target.rows if row.auc is not None} == {
        "naive:t=100:draws=1",
        "same_supervision",
    }
