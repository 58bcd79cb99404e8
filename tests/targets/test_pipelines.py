"""Pipelines on disk: what is whole is loaded exactly, what is damaged, random or a pickle is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion_models import BUILDERS, CLASSES, own, pictures, tiny, unet, with_lora, wrapped
from repromia.errors import TargetError
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.pipelines import DiffusionOptions, is_pipeline, load_diffusion_model, quiet

CPU = DiffusionOptions(device="cpu")
TIMES = torch.tensor([3, 500, 999])


def answers(target: DiffusionModel) -> Tensor:
    x = torch.randn(3, *target.denoiser.shape, generator=torch.Generator().manual_seed(5))
    return target.noise(x, TIMES, target.conditions(target.encode(pictures(3, ["a cat", "on the moon", "3"]))))


def saved(pipeline: Any, folder: Path, **options: Any) -> Path:
    with quiet():
        pipeline.save_pretrained(folder, **options)
    return folder


def load(folder: Path, **options: Any) -> DiffusionModel:
    return load_diffusion_model(str(folder), DiffusionOptions(device="cpu", **options))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A path on disk never touches the network, even where that is allowed."""
    asked: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> None:
        asked.append(args)
        raise OSError("there is no network")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield
    assert not asked


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    return saved(tiny("ddpm"), tmp_path / "ddpm")


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    return saved(tiny("sd1"), tmp_path / "sd1")


@pytest.mark.parametrize("name", [one for one in BUILDERS if not one.startswith("flux")])
def test_a_saved_pipeline_answers_as_the_live_one(name: str, tmp_path: Path) -> None:
    folder = saved(tiny(name), tmp_path / name)
    loaded, live = load(folder), wrapped(tiny(name))
    assert is_pipeline(str(folder))
    if name == "dit":  # save_pretrained forgets the names of classes
        index = json.loads((folder / "model_index.json").read_text())
        index["id2label"] = {str(number): said for number, said in CLASSES.items()}
        (folder / "model_index.json").write_text(json.dumps(index))
        loaded = load(folder)
        assert loaded.denoiser.condition(["tiger shark"])["class"].item() == 3
    assert torch.equal(answers(loaded), answers(live))
    assert loaded.fingerprint == live.fingerprint
    assert not any(weight.requires_grad for part in loaded.denoiser.modules.values() for weight in part.parameters())
    json.dumps(loaded.describe())


def test_flux_on_disk(tmp_path: Path) -> None:
    """Its default of 128 x 128 latents is not in any file."""
    loaded = load(saved(tiny("flux-dev"), tmp_path / "flux"))
    assert loaded.denoiser.shape == (4, 128, 128)
    assert loaded.denoiser.pixels == (3, 256)


def test_smaller_types(pixels: Path) -> None:
    target = load(pixels, dtype="bfloat16")
    assert target.describe()["dtype"] == "bfloat16"
    assert (answers(target) - answers(load(pixels))).abs().mean() < 0.05
    with pytest.raises(TargetError, match=r"no dtype 'int4'"):
        load(pixels, dtype="int4")


def test_ema_weights_in_a_folder_of_their_own(pixels: Path) -> None:
    averaged = unet(seed=9)
    ema = EMAModel(averaged.parameters(), model_cls=type(averaged), model_config=averaged.config)
    with quiet():
        ema.save_pretrained(pixels / "unet_ema")
    raw, smooth = load(pixels), load(pixels, variant="ema")
    assert torch.equal(answers(raw), answers(wrapped(tiny("ddpm"))))
    pipeline = own("ddpm")
    pipeline.unet = averaged
    assert torch.equal(answers(smooth), answers(wrapped(pipeline)))
    assert raw.fingerprint != smooth.fingerprint


def test_ema_weights_in_files_of_their_own(latents: Path) -> None:
    raw = answers(load(latents))
    averaged = own("sd1")
    with torch.no_grad():
        for weight in averaged.unet.parameters():
            weight.mul_(0.9)
    averaged.unet.save_pretrained(latents / "unet", variant="ema")
    assert torch.equal(answers(load(latents)), raw)
    assert torch.equal(answers(load(latents, variant="ema")), answers(wrapped(averaged)))


def test_a_variant_that_is_not_there(pixels: Path, latents: Path) -> None:
    for folder in (pixels, latents):
        with pytest.raises(TargetError, match="variant"):
            load(folder, variant="ema")
    tiny("sd1").vae.save_pretrained(latents / "vae", variant="ema")
    with pytest.raises(TargetError, match="variant"):  # diffusers would take the raw UNet
        load(latents, variant="ema")


def test_lora_beside_its_base(latents: Path, tmp_path: Path) -> None:
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    adapted = with_lora(own("sd1"), text=True)
    parts = [adapted.unet, adapted.text_encoder]
    kept = [convert_state_dict_to_diffusers(get_peft_model_state_dict(one)) for one in parts]
    with quiet():
        adapted.save_lora_weights(tmp_path / "lora", *kept)
    assert is_pipeline(str(tmp_path / "lora"))
    with pytest.raises(TargetError, match="--base"):
        load(tmp_path / "lora")
    # diffusers takes alpha = rank where the file does not say otherwise
    target = load(tmp_path / "lora", base=str(latents))
    assert target.has_adapter
    assert torch.equal(answers(target.base()), answers(wrapped(tiny("sd1"))))
    assert not torch.allclose(answers(target), answers(target.base()), atol=1e-3)
    file = tmp_path / "lora" / "pytorch_lora_weights.safetensors"
    assert torch.equal(answers(load(file, base=str(latents))), answers(target))


def lora_folder(folder: Path, latents: Path, change: Callable[[dict[str, Tensor]], Any]) -> Path:
    name = "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora"
    weights = {f"{name}_A.weight": torch.randn(2, 16), f"{name}_B.weight": torch.randn(16, 2)}
    change(weights)
    folder.mkdir()
    save_file(weights, folder / "pytorch_lora_weights.safetensors")
    return folder


def test_a_small_lora(latents: Path, tmp_path: Path) -> None:
    target = load(lora_folder(tmp_path / "lora", latents, lambda weights: None), base=str(latents))
    assert not torch.allclose(answers(target), answers(target.base()), atol=1e-4)


def renamed(weights: dict[str, Tensor]) -> None:
    for name in list(weights):
        weights[name.replace("up_blocks.0", "up_blocks.7")] = weights.pop(name)


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.update({key: torch.randn(5, 3) for key in weights}),
        renamed,
        lambda weights: weights.update(
            {key.replace("up_blocks.0", "up_blocks.7"): weights[key] + 1 for key in weights}
        ),
        lambda weights: [weights.pop(key) for key in list(weights)] + [weights.update(x=torch.zeros(1))],
        lambda weights: weights.pop(next(key for key in weights if "lora_B" in key)),
    ],
    ids=["shape", "names", "some names", "nothing", "half"],
)
def test_lora_of_another_model(latents: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    with pytest.raises(TargetError, match="LoRA weights"):
        load(lora_folder(tmp_path / "lora", latents, change), base=str(latents))


def test_damaged_and_pickled_lora(latents: Path, pixels: Path, tmp_path: Path) -> None:
    folder = lora_folder(tmp_path / "lora", latents, lambda weights: None)
    with pytest.raises(TargetError, match="takes no LoRA"):
        load(folder, base=str(pixels))
    with pytest.raises(TargetError, match="There is no model at"):
        load(folder, base=str(tmp_path / "nothing"))
    file = folder / "pytorch_lora_weights.safetensors"
    torch.save(Trap(tmp_path / "opened"), folder / "pytorch_lora_weights.bin")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TargetError, match="LoRA weights"):
        load(folder, base=str(latents))
    file.unlink()
    with pytest.raises(TargetError, match="no diffusers pipeline"):
        load(folder, base=str(latents))
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("path", ["/no/such/model", "./nothing", "nothing", "a/b/c"])
def test_a_missing_folder(path: str) -> None:
    with pytest.raises(TargetError, match="There is no model at"):
        load_diffusion_model(path, CPU)


class Trap:
    """A pickle that shows whether it was opened."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> Any:
        return Path.touch, (self.sign,)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("truncated", "Unable to load weights|Safetensor"),
        ("emptied", "Unable to load weights|Safetensor"),
        ("garbled", "Unable to load weights|Safetensor"),
        ("removed", "safetensors found"),
        ("pickled", "safetensors found"),
        ("lacking", "1 missing"),
        ("folder", "No such file|no file named"),
    ],
)
def test_damaged_weights(latents: Path, part: str, damage: str, said: str) -> None:
    file = next((latents / part).glob("*.safetensors"))
    whole = file.read_bytes()
    match damage:
        case "truncated":
            file.write_bytes(whole[:-1000])
        case "emptied":
            file.write_bytes(b"")
        case "garbled":
            file.write_bytes(b"\xff" * 5000)
        case "removed":
            file.unlink()
        case "pickled":
            for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin"):
                torch.save(Trap(latents / "opened"), file.with_name(name))
            file.unlink()
        case "lacking":
            weights = load_file(file)
            weights.pop(sorted(weights)[0])
            save_file(weights, file, metadata={"format": "pt"})
        case "folder":
            shutil.rmtree(file.parent)
    with pytest.raises(TargetError, match=said):
        load(latents)
    assert not (latents / "opened").exists()


@pytest.mark.parametrize("said", ['{"_class_name": "NoSuchPipeline"}', "{", "[]", "{}", '{"_class_name": 3}', ""])
def test_a_damaged_index(pixels: Path, said: str) -> None:
    (pixels / "model_index.json").write_text(said)
    with pytest.raises(TargetError, match=r"pipeline"):
        load(pixels)
    (pixels / "model_index.json").unlink()
    with pytest.raises(TargetError, match=r"model_index\.json"):
        load(pixels)


@pytest.mark.parametrize("name", ["scheduler/scheduler_config.json", "unet/config.json"])
@pytest.mark.parametrize("said", ["{", None, "{}"])
def test_a_damaged_config(pixels: Path, name: str, said: str | None) -> None:
    if said is None:
        (pixels / name).unlink()
    else:
        (pixels / name).write_text(said)
    if (name, said) == ("scheduler/scheduler_config.json", "{}"):
        load(pixels)  # the library's own defaults
        return
    with pytest.raises(TargetError):
        load(pixels)


@pytest.mark.parametrize("place", ["pipeline", "part"])
def test_code_of_ones_own_is_run_only_where_it_is_trusted(
    pixels: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("diffusers.utils.dynamic_modules_utils", "diffusers.utils.constants"):
        monkeypatch.setattr(f"{module}.HF_MODULES_CACHE", str(pixels / "modules"))
    monkeypatch.syspath_prepend(str(pixels / "modules"))
    index = json.loads((pixels / "model_index.json").read_text())
    index["_class_name" if place == "pipeline" else "unet"] = ["mine", "Mine"]
    (pixels / "model_index.json").write_text(json.dumps(index))
    kind, folder = ("DDPMPipeline", pixels) if place == "pipeline" else ("UNet2DModel", pixels / "unet")
    opened = f"from pathlib import Path\nPath({str(pixels / 'opened')!r}).touch()"
    (folder / "mine.py").write_text(f"{opened}\nfrom diffusers import {kind}\nclass Mine({kind}):\n    pass\n")
    with pytest.raises(TargetError, match=r"(?s)custom code.*--trust-remote-code"):
        load(pixels)
    assert not (pixels / "opened").exists()
    assert torch.equal(answers(load(pixels, trust_remote_code=True)), answers(wrapped(tiny("ddpm"))))
    assert (pixels / "opened").exists()


def test_hub_ids(pixels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(pixels)

    monkeypatch.setattr("diffusers.DiffusionPipeline.download", download)
    target = load_diffusion_model("owner/name", DiffusionOptions(device="cpu", revision="abc"))
    options = {"use_safetensors": True, "trust_remote_code": False, "revision": "abc"}
    assert asked == [("owner/name", options)]
    assert target.name == "owner/name"
    monkeypatch.undo()
    with pytest.raises(TargetError, match="cannot be loaded"):  # HF_HUB_OFFLINE
        load_diffusion_model("owner/name", CPU)


def test_an_older_layout_is_not_taken_for_damaged(latents: Path) -> None:
    """Published autoencoders and text encoders name their weights as the libraries did in 2022."""
    text = latents / "text_encoder" / "model.safetensors"
    named = {f"text_model.{key.removeprefix('text_model.')}": weight for key, weight in load_file(text).items()}
    save_file(named, text, metadata={"format": "pt"})
    file = latents / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for key, weight in load_file(file).items():
        for new, name in old.items():
            key = key.replace(f".{new}.", f".{name}.") if ".attentions." in key else key
        weights[key] = weight
    assert any(".query." in key for key in weights)
    save_file(weights, file, metadata={"format": "pt"})
    assert torch.equal(answers(load(latents)), answers(wrapped(tiny("sd1"))))


def test_weights_in_many_files(tmp_path: Path) -> None:
    folder = saved(tiny("sd1"), tmp_path / "sd1", max_shard_size="20KB")
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 2
    assert torch.equal(answers(load(folder)), answers(wrapped(tiny("sd1"))))
    shards[1].unlink()
    with pytest.raises(TargetError, match="cannot be loaded"):
        load(folder)


def test_what_is_not_asked_is_not_loaded(latents: Path) -> None:
    """A safety checker takes no part, and published ones come as pickles only."""
    index = json.loads((latents / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (latents / "model_index.json").write_text(json.dumps(index))
    load(latents)
