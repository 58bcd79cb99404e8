"""Text-to-image models on images that they are said to have seen, and on others."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repromia.benchmarks.benchmark import Job, Scale
from repromia.benchmarks.image_files import digits
from repromia.errors import RecordsError
from repromia.progress import Silent
from repromia.result import AuditResult
from repromia.store import write_atomic

EVERYTHING = ("naive,secmi_stat,pia,pian,sima,pfami,clid,shift_contrast,probe_bank,reprogram:steps=10",)
SMOKE = Scale(
    attacks=("sima:t=30+80,clid:t=100:draws=1,shift_contrast:t=30+80",),
    takes="half a minute",
    records=110,
    bootstrap=500,
)
STAND_IN = 120  # images of a side of a likeness
SIZE = 16  # pixels of the likeness


class Captioned(NamedTuple):
    """An image file, its caption and its side."""

    path: Path
    caption: str
    member: bool


def read_folders(files: tuple[Path, ...]) -> list[Captioned]:
    """Two folders, members first, each with metadata.jsonl (`file_name`, `text`). Raises RecordsError."""
    return [
        Captioned(folder / name, caption, member)
        for folder, member in zip(files, (True, False), strict=True)
        for name, caption in _metadata(folder).items()
    ]


def read_folder_and_coco(files: tuple[Path, ...]) -> list[Captioned]:
    """A folder of members with metadata.jsonl; COCO's images of 2017 with the first caption of each. Raises
    RecordsError."""
    folder, images, annotations = files
    content = json.loads(annotations.read_text(encoding="utf-8"))
    names = {one["id"]: one["file_name"] for one in content["images"]}
    first: dict[str, str] = {}
    for one in content["annotations"]:
        first.setdefault(names[one["image_id"]], one["caption"])
    members = [Captioned(folder / name, caption, True) for name, caption in _metadata(folder).items()]
    return [*members, *(Captioned(images / name, caption, False) for name, caption in sorted(first.items()))]


def _metadata(folder: Path) -> Mapping[str, str]:
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    absent = [row.get("file_name") for row in rows if not (folder / str(row.get("file_name"))).is_file()]
    if absent or not rows:
        raise RecordsError(
            f"{folder}: images are missing",
            expected="every `file_name` of metadata.jsonl",
            found=f"{len(absent)} of {len(rows)} are not there",
        )
    return {str(row["file_name"]): str(row.get("text", "")) for row in rows}


def run_text_to_image(job: Job) -> AuditResult:
    """Audit the model on at most `scale.records` images of each side, drawn by lot."""
    from repromia.config import AuditConfig
    from repromia.run import audit_to_folder

    records = job.benchmark.read(job.files)
    generator = np.random.default_rng(job.seed)
    for name, side in (("members", True), ("nonmembers", False)):
        own = [one for one in records if one.member == side]
        own = [own[row] for row in generator.permutation(len(own))[: job.scale.records or None]]
        rows = [json.dumps({"image": str(one.path.resolve()), "caption": one.caption}) + "\n" for one in own]
        write_atomic(job.folder / f"{name}.jsonl", "".join(rows).encode())
    config = AuditConfig(
        **job.settings,
        modality="diffusion",
        model=job.model,
        reference=job.reference,
        members=job.folder / "members.jsonl",
        nonmembers=job.folder / "nonmembers.jsonl",
        image="image",
        caption="caption",
        skip_unreadable=True,
        batch_images=16,
        out=job.folder / "audit",
    )
    return audit_to_folder(config, Silent())


def text_to_image_steps(job: Job) -> tuple[str, ...]:
    """What a run does."""
    return (
        f"read {', '.join(map(str, job.files))}",
        f"members and non-members: {job.scale.records:,} of each by lot, seed {job.seed}; scaled and cut to "
        "the model's size",
        f"target: {job.model or job.benchmark.target}; frozen, asked with every image's own caption, guidance 1",
        f"reference and null target: {job.reference or 'none named (--reference), such as another family of models'}",
        f"{job.roles}; every timestep is chosen on select",
    )


def write_sides(folder: Path, *, paths: tuple[str, ...], coco: str = "") -> None:
    """Digits with captions: folders with metadata.jsonl, the second one (`coco`: its annotations) as COCO has it."""
    from PIL import Image

    images, classes = digits(SIZE, 3)
    for side, path in enumerate(paths):
        rows = range(side * STAND_IN, (side + 1) * STAND_IN)
        named = {row: f"{row:012d}.jpg" for row in rows}
        captions = {row: f"the digit {classes[row]}" for row in rows}
        (folder / path).mkdir(parents=True, exist_ok=True)
        for row, name in named.items():
            Image.fromarray(images[row]).save(folder / path / name)
        if coco and side:
            listed = [{"id": row, "file_name": name} for row, name in named.items()]
            notes = [{"id": row, "image_id": row, "caption": caption} for row, caption in captions.items()]
            write_atomic(folder / coco, json.dumps({"images": listed, "annotations": notes}).encode())
        else:
            lines = [json.dumps({"file_name": named[row], "text": captions[row]}) + "\n" for row in rows]
            write_atomic(folder / path / "metadata.jsonl", "".join(lines).encode())


def stand_in_pipeline(folder: Path) -> tuple[str, str]:
    """A Stable Diffusion pipeline of 16 x 16 pixels with random weights: it has seen nothing, so nothing is found."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from repromia.targets.pipelines import quiet

    folder = folder / "pipeline"
    if (folder / "model_index.json").is_file():
        return str(folder), ""
    letters = string.ascii_lowercase + string.digits
    vocabulary = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    begin, end = len(vocabulary) - 2, len(vocabulary) - 1
    ids = {token: number for number, token in enumerate(vocabulary)}
    text: dict[str, Any] = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(
                block_out_channels=(8, 16),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                norm_num_groups=4,
                sample_size=SIZE,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(vocabulary),
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    max_position_embeddings=16,
                    **text,
                )
            ),
            tokenizer=CLIPTokenizer(vocab=ids, merges=[], unk_token="<|endoftext|>", model_max_length=16),  # noqa: S106
            unet=UNet2DConditionModel(
                sample_size=SIZE // 2,
                block_out_channels=(8, 16),
                layers_per_block=1,
                norm_num_groups=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=32,
                attention_head_dim=4,
            ),
            scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(folder)
    return str(folder), ""
