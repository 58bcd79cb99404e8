"""What the suite of diffusion attacks costs: evaluations and time, together against one by one, and peak memory.

    python -m benchmarks.diffusion_speed

A random UNet of the benchmarks' size at 16 x 16; times are the process's CPU seconds of both sides in one run. Memory:
each number of records in a process of its own, encoded images in a file that is read as needed.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from repromia.attacks import Chosen, choose, parse
from repromia.demo.denoiser import Recipe, unet_of
from repromia.evaluate import Judge, all_records
from repromia.pictures import read_pictures
from repromia.programs import Binding
from repromia.progress import Silent
from repromia.roles import assign_roles
from repromia.scoring import programs_asked, run_attack
from repromia.store import Store
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.pipelines import wrap_pipeline
from repromia.views import Views

RECORDS = 300
LEARNED = ("reprogram", "secmi_nns")  # learning costs what it costs, together or alone


def target() -> DiffusionModel:
    """A UNet with random weights."""
    from diffusers import DDPMPipeline, DDPMScheduler

    torch.manual_seed(0)
    return wrap_pipeline(DDPMPipeline(unet_of(Recipe(), 16, 3), DDPMScheduler()))


def views_of(folder: Path, count: int) -> Views:
    """Views of `count` PNG files, nothing stored."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for side in ("members", "nonmembers"):
        (folder / side).mkdir(exist_ok=True)
        for row in range(count // 2):
            pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / side / f"{row:05d}.png")
    roles = assign_roles(read_pictures(folder / "members", folder / "nonmembers"))
    judge = Judge(roles, (0.05,), 200, 0)
    model = target()
    binding = Binding(model, roles.fit, roles.select, 0, Silent(), longest=0)
    return Views({"target": model}, all_records(judge.roles), binding, Store(None))


def fresh(views: Views) -> Views:
    """The same records and an equal model that was asked nothing."""
    model = target()
    binding = Binding(model, views.binding.fit, views.binding.select, 0, Silent(), longest=0)
    return Views({"target": model}, views.records, binding, Store(None))


def run(chosen: list[Chosen], views: Views) -> tuple[float, float]:
    """Evaluations a record and CPU seconds of these attacks."""
    began = time.process_time()
    views.ask_together("target", programs_asked(chosen, views, "target"))
    failed = [one.chosen.name for one in (run_attack(row, views) for row in chosen) if one.reason]
    assert not failed, failed
    return views.targets["target"].asked / len(views.records), time.process_time() - began


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            views = views_of(Path(folder), int(sys.argv[1]))
            run([parse("shift_contrast", "diffusion"), parse("sima", "diffusion")], views)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    chosen = [one for one in choose(("default",), reference=False, modality="diffusion") if one.name not in LEARNED]
    with tempfile.TemporaryDirectory() as folder:
        views = views_of(Path(folder), RECORDS)
        run([parse("sima", "diffusion")], fresh(views))  # warm up
        alone = {one.name: run([one], fresh(views)) for one in chosen}
        passive = [one for one in chosen if one.attack.kind == "passive"]
        alone["same_supervision"] = run(passive, fresh(views))
        together = run(chosen, fresh(views))
    for name, (evaluations, seconds) in alone.items():
        print(f"{name:20} {evaluations:6.1f} evaluations a record  {seconds:6.1f} s")
    total = tuple(map(sum, zip(*alone.values(), strict=True)))
    print(f"{'one by one':20} {total[0]:6.1f} evaluations a record  {total[1]:6.1f} s")
    print(f"{'together':20} {together[0]:6.1f} evaluations a record  {together[1]:6.1f} s")
    print(f"ratio: evaluations {together[0] / total[0]:.2f}, time {together[1] / total[1]:.2f} (goal 0.33)")
    for count in (2000, 8000):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.diffusion_speed", str(count)], capture_output=True, text=True, check=True
        )
        print(f"{count} records: peak {float(done.stdout.split()[-1]):.0f} MB")


if __name__ == "__main__":
    main()
