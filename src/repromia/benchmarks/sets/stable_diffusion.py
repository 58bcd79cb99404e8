"""Stable Diffusion v1.5: LAION-mi (no shift between the sides) and LAION against COCO (shifted)."""

from __future__ import annotations

from functools import partial

from repromia.benchmarks import text_to_image
from repromia.benchmarks.benchmark import NOT_HERE, Benchmark, DataFile, Published, Scale
from repromia.benchmarks.figures import COPYMARK, REPROMIA

PAPER = Scale(attacks=text_to_image.EVERYTHING, takes="a day on one GPU", records=2500)
LAPTOP = Scale(attacks=text_to_image.EVERYTHING, takes="days without a GPU", records=100)
TARGET = "Stable Diffusion v1.5 (stable-diffusion-v1-5/stable-diffusion-v1-5, or a folder), named with --model"
MEMBERS, OTHERS = ("laion_mi/members", "laion_mi/nonmembers")
LAION, IMAGES, NOTES = "laion/members", "coco/val2017", "coco/annotations/captions_val2017.json"
FOLDER = "image files and metadata.jsonl with `file_name` and `text`"


def _folder(path: str) -> DataFile:
    return DataFile(path, FOLDER, unhashed="images are fetched one by one from addresses, some of which are gone")


BENCHMARKS = (
    Benchmark(
        name="laion_mi-sd",
        title="LAION-mi, Stable Diffusion v1.5",
        modality="diffusion",
        iid=False,
        source="Hugging Face antoniaaa/laion_mi (Dubinski et al. 2024); images by their addresses",
        licence="metadata CC BY 4.0; images under their owners' terms",
        layouts=((_folder(MEMBERS), _folder(OTHERS)),),
        protocol="Members from LAION-aesthetics, non-members from LAION, filtered so that the sides look alike.",
        target=TARGET,
        against=(
            "A blind baseline on captions alone: TPR .089 at 1 % FPR, the best attack then .025 (Das et al. 2024).",
            "Without a shift attacks are near chance: naive loss .534 (CopyMark).",
        ),
        published=(
            Published("naive loss", "SD v1.5, LAION-mi", 0.534, 0.012, COPYMARK),
            Published(
                "SecMI", "SD v1.5, LAION-mi", 0.534, None, COPYMARK, note=".523 to .534; not SecMI's own inversion"
            ),
            Published("PFAMI", "SD v1.5, LAION-mi", 0.510, None, COPYMARK),
        ),
        smoke=text_to_image.SMOKE,
        laptop=LAPTOP,
        paper=PAPER,
        read=text_to_image.read_folders,
        run=text_to_image.run_text_to_image,
        stand_in=partial(text_to_image.write_sides, paths=(MEMBERS, OTHERS)),
        steps=text_to_image.text_to_image_steps,
        model="stable-diffusion-v1-5",
        stand_in_models=text_to_image.stand_in_pipeline,
    ),
    Benchmark(
        name="coco-sd",
        title="LAION against COCO, Stable Diffusion v1.5",
        modality="diffusion",
        iid=False,
        source="LAION-5B by its addresses; https://cocodataset.org (val2017 and annotations)",
        licence="LAION metadata CC BY 4.0; COCO annotations CC BY 4.0; images under their owners' terms",
        layouts=(
            (
                _folder(LAION),
                DataFile(IMAGES, "image files", unhashed=f"a folder; {NOT_HERE}"),
                DataFile(NOTES, "COCO's captions", unhashed=NOT_HERE),
            ),
        ),
        protocol="Members from LAION, non-members from COCO 2017.",
        target=TARGET,
        against=(
            "The sides come from different sources: a naive loss reaches AUC .767 here and .534 without the shift "
            "(CopyMark), as much as ReproMIA's.",
            "CLiD falls from near 1 to .586 when every image gets the same prompt.",
        ),
        published=(
            Published("ReproMIA", "SD v1.5, LAION-5B / COCO", 0.76, 0.3152, REPROMIA, note="AUC: about"),
            Published("SecMI", "SD v1.5, LAION-5B / COCO", None, 0.1961, REPROMIA),
            Published("naive loss", "SD v1.5, LAION-aesthetics / COCO", 0.767, 0.342, COPYMARK),
            Published("PFAMI", "SD v1.5, LAION-aesthetics / COCO", 0.606, None, COPYMARK),
        ),
        smoke=text_to_image.SMOKE,
        laptop=LAPTOP,
        paper=PAPER,
        read=text_to_image.read_folder_and_coco,
        run=text_to_image.run_text_to_image,
        stand_in=partial(text_to_image.write_sides, paths=(LAION, IMAGES), coco=NOTES),
        steps=text_to_image.text_to_image_steps,
        model="stable-diffusion-v1-5",
        stand_in_models=text_to_image.stand_in_pipeline,
    ),
)
