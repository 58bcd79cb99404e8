"""The configuration of an audit: the same object is flags, YAML file and what `result.json` records."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator


class Settings(BaseModel):
    """What is measured and how. Everything but where models and records come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attacks: tuple[str, ...] = Field(
        ("default",), description="Attacks, such as loss, min_k:k=0.1, default, passive, all."
    )
    headline: str = Field(
        "", description="The attack to report first, named beforehand; empty: the best on the select role."
    )
    fit: float = Field(0.2, gt=0, lt=1, description="Share of the records that programs and heads learn from.")
    select: float = Field(0.1, gt=0, lt=1, description="Share that chooses between variants.")
    transfer_from: str = Field(
        "",
        description="Folder of an audit of a shadow model, whose heads and learned programs are carried over: they "
        "need no label of this target, unless one of their features is a prefix of labelled shots.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Decides roles, shots, initialisations and resampling.")
    fprs: tuple[float, ...] = Field(
        (0.05, 0.01, 0.001), description="False-positive rates to report the true-positive rate at."
    )
    near_duplicates: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Jaccard similarity of word 5-grams from which two texts are near-duplicates (images: see docs).",
    )
    bootstrap: int = Field(2000, ge=200, description="Resamples for intervals.")
    head_permutations: int = Field(50, ge=50, description="Refits of heads on permuted labels.")
    program_permutations: int = Field(
        2, ge=0, description="Programs learned again on permuted labels (each costs as much as the first)."
    )
    manifest: str = Field(
        "",
        description="manifest.json of `repromia split`, or its folder: membership was drawn by lot before training, so "
        "that epsilon can be bounded from below.",
    )
    delta: float = Field(1e-5, ge=0, lt=1, description="Delta of the bounds on epsilon.")
    controls: bool = Field(True, description="Run null target and permuted labels. Blind baselines always run.")

    @field_validator("attacks", "fprs", mode="before")
    @classmethod
    def _comma_separated(cls, given: object) -> object:
        many = (given,) if isinstance(given, str | float) else given
        if isinstance(many, list | tuple):
            parts = [part for one in many for part in (one.split(",") if isinstance(one, str) else [one])]
            stripped = [part.strip() if isinstance(part, str) else part for part in parts]
            return tuple(part for part in stripped if part != "")
        return given

    @field_validator("attacks")
    @classmethod
    def _some(cls, attacks: tuple[str, ...]) -> tuple[str, ...]:
        if not attacks:
            raise ValueError("names no attack: name some, such as loss,min_k, or leave it out for the default")
        return attacks

    @field_validator("fprs")
    @classmethod
    def _rates(cls, fprs: tuple[float, ...]) -> tuple[float, ...]:
        if not fprs or any(not 0 < fpr < 1 for fpr in fprs):
            raise ValueError("false-positive rates lie between 0 and 1, such as 0.01")
        return tuple(sorted(set(fprs), reverse=True))

    @model_validator(mode="after")
    def _room_for_eval(self) -> Settings:
        if self.fit + self.select > 0.9:
            raise ValueError("fit + select must leave at least a tenth of the records for eval")
        return self


class AuditConfig(Settings):
    """A whole audit from the command line or a YAML file."""

    modality: Literal["auto", "language", "diffusion", "classifier", "graph"] = Field(
        "auto",
        description="What kind of model it is; auto: graph where --graph is given, classifier where --class-field is, "
        "else diffusion where the records are images.",
    )
    model: str = Field(
        description="The model to audit: folder of a language model, diffusers pipeline or Hugging Face classifier, "
        "adapter folder, hub id, *.skops file, or package.module:function that builds a classifier; with --endpoint, "
        "its name on the server."
    )
    class_field: str = Field(
        "",
        description="Field that holds the class a classifier was to predict; folder: of images, the name of the folder "
        "they lie in.",
    )
    classes: tuple[str, ...] = Field((), description="Names of the classes in the model's order; empty: 0, 1, …")
    weights: str = Field("", description="safetensors file for a module that --model builds.")
    answer: Literal["", "logits", "probabilities", "top_k", "label"] = Field(
        "", description="What a classifier answers with; empty: modules logits, estimators probabilities."
    )
    pixels: int = Field(
        0, ge=0, description="Side of the images that a classifier takes; 0: its own, else that of the first record."
    )
    channels: int = Field(0, description="Their channels, 1 or 3; 0: the classifier's own, else the records'.")
    mean: tuple[float, ...] = Field(
        (),
        description="What a classifier's images are scaled by, as 0.49,0.48,0.45: (pixel - mean) / std of pixels in "
        "[0, 1], a number a channel; empty: its own, else none. Shadow models get the same.",
    )
    std: tuple[float, ...] = Field((), description="See --mean.")
    defence: tuple[str, ...] = Field(
        (),
        description="Defence that every model of the audit is asked through, such as label_only, rounding:digits=2, "
        "temperature:t=5, noise:scale=1, top_k:k=3, smoothing:copies=8; given again: the next one, further outside.",
    )
    random_answers: bool = Field(False, description="A classifier's answers may differ from call to call.")
    shadow_training: str = Field(
        "", description="package.module:function that trains a shadow model: train(records, seed) -> model."
    )
    shadow_models: int = Field(16, ge=2, description="Shadow models to train.")
    shadow_folder: str = Field(
        "", description="Folder of trained shadow models with masks.npz: who was in which training set."
    )
    cluster: str = Field(
        "local",
        description="Where shadow models are trained and the models are asked: local, ray, or ray://host:port.",
    )
    graph: str = Field(
        "",
        description="Graph whose nodes a model classifies: .npz, .safetensors, a folder of Planetoid files, or a "
        "dataset of torch_geometric (pyg:Amazon:root=data:name=Photo, :download=true to fetch it). Members and "
        "non-members are then names of its masks or files of node numbers; or --label is an array of its own that says "
        "1 for a member, 0 for a non-member and -1 for neither.",
    )
    hops: int = Field(
        -1, ge=-1, description="Neighbourhood on which every node is asked about, in hops; -1: the whole graph."
    )
    neighbours: int = Field(0, ge=0, description="Most edges that lead to a node, for large graphs; 0: all of them.")
    asymmetric: bool = Field(
        False,
        description="Ask about members on the graph of the members alone, as older papers do: confounded, for "
        "comparison only.",
    )
    reference: str = Field(
        "", description="A model that did not see the records, best the checkpoint before fine-tuning."
    )
    null_reference: str = Field(
        "", description="A second such model, so that reference attacks have a null target too."
    )
    members: Path | None = Field(None, description="Records the model was trained on.")
    nonmembers: Path | None = Field(None, description="Records of the same source that were kept aside.")
    data: str = Field("", description="One file or dataset with both, told apart by --label.")
    label: str = Field("", description="Field of --data that says who is a member.")
    text: str = Field("", description="Field that holds the record; found by itself where it is clear.")
    group: str = Field("", description="Field that ties records together (passages of one document).")
    image: str = Field("", description="Field that holds the image; found by itself where it is clear.")
    caption: str = Field("", description="Field that holds the caption, for models that are asked with one.")
    skip_unreadable: bool = Field(False, description="Leave out images that cannot be read, and go on.")
    out: Path = Field(description="Directory for the result; running again goes on where it stopped.")
    base: str = Field("", description="Base model of an adapter whose config names none on this disk.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: the checkpoint's own, float32 on a CPU."
    )
    device: str = Field("", description="cpu, cuda, cuda:1; empty: a GPU if there is one.")
    device_map: str = Field("", description="auto spreads a large model over devices (accelerate).")
    gguf_file: str = Field("", description="Name of a GGUF file in the model folder.")
    revision: str = Field("", description="Revision of a hub model.")
    trust_remote_code: bool = Field(False, description="Run code that the model's repository brings along.")
    max_tokens: int = Field(
        0,
        ge=0,
        description="Longest record in tokens; 0: three quarters of the context, so that prefixes fit.",
    )
    loss_on: Literal["auto", "all", "completion"] = Field(
        "auto", description="Which tokens count: as in training. auto: completions and assistant turns."
    )
    score_end: bool = Field(False, description="Score the end-of-sequence token too, if training had it.")
    batch_tokens: int = Field(4096, ge=1, description="Tokens in one forward pass; halved when memory runs out.")
    batch_images: int = Field(
        64, ge=1, description="Denoiser evaluations in one forward pass; halved when memory runs out."
    )
    resize: Literal["auto", "crop", "squash", "refuse"] = Field(
        "auto",
        description="Images of another size than the model's, the same for both sides: scale and cut the middle out, "
        "scale both sides, or refuse. auto: a Hugging Face classifier's own way, else crop.",
    )
    variant: str = Field(
        "", description="Other weights in the pipeline's folder, such as ema (unet_ema/, or a diffusers variant)."
    )
    endpoint: str = Field(
        "",
        description="Address of an OpenAI-compatible server up to /v1, such as http://localhost:8000/v1; nothing is "
        "loaded then, and references are other models on it.",
    )
    endpoint_key: str = Field("OPENAI_API_KEY", description="Environment variable that holds the endpoint's key.")
    endpoint_context: int = Field(2048, ge=2, description="Tokens that the endpoint reads, prefix included.")
    endpoint_begin: str = Field(
        "", description="Text of the BOS token, such as `<s>`, for a server that does not put it in front by itself."
    )
    endpoint_check: bool = Field(
        True, description="Ask first whether the endpoint's figures belong to the tokens they stand beside."
    )
    requests_per_minute: int = Field(0, ge=0, description="Most requests to the endpoint a minute; 0: no limit.")
    request_budget: int = Field(
        0, ge=0, description="Most requests to the endpoint in this run, retries included; 0: no limit."
    )
    slice: tuple[str, ...] = Field(
        (),
        description="Field of the records' table by which the headline attack is measured apart, such as language or "
        "source; may be given several times. Bands of length and classes are measured anyway.",
    )
    rotations: int = Field(
        1,
        ge=1,
        description="Audit so many times, with seeds seed, seed + 1, … and so other roles, in OUT/rotation-1 and so "
        "on, and rank all members in OUT/exposure.csv; 6 leave 1 record in 1,000 out.",
    )
    redact: bool = Field(False, description="Keep record texts out of the report; ids only.")

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _scales(cls, given: object) -> object:
        return cls._comma_separated(given)

    @model_validator(mode="after")
    def _scaled_by_both(self) -> AuditConfig:
        if self.channels not in (0, 1, 3):
            raise ValueError(f"--channels is 1 or 3, and 0 where it is to be found out (found {self.channels})")
        if len(self.mean) != len(self.std) or not all(one > 0 for one in self.std):
            raise ValueError("--mean and --std go together: a number a channel in both, those of --std above 0")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> AuditConfig:
        two, one = bool(self.members or self.nonmembers), bool(self.data or self.label)
        if self.graph:
            if self.data or two == one:
                raise ValueError("with --graph give either --members and --nonmembers, or --label alone")
            one = False
        elif self.hops >= 0 or self.neighbours or self.asymmetric or self.modality == "graph":
            raise ValueError("nodes are asked about on a graph: name it with --graph")
        elif two == one:
            raise ValueError("give either --members and --nonmembers, or --data and --label")
        if self.shadow_training and self.shadow_folder:
            raise ValueError("give --shadow-training or --shadow-folder, not both")
        if two and not (self.members and self.nonmembers):
            raise ValueError("--members and --nonmembers go together")
        if one and not (self.data and self.label):
            raise ValueError("--data and --label go together")
        return self

    @model_validator(mode="after")
    def _nothing_is_loaded(self) -> AuditConfig:
        if self.endpoint:
            given = [f"--{name.replace('_', '-')}" for name in _OF_WEIGHTS if getattr(self, name) != _default(name)]
            if given:
                raise ValueError(f"{', '.join(given)} cannot go with --endpoint, which loads no model and cuts no text")
        return self

    def settings(self) -> Settings:
        """The part that does not say where things come from."""
        return Settings(**{name: getattr(self, name) for name in Settings.model_fields})


_OF_WEIGHTS = (
    "cluster",
    "defence",
    "base",
    "dtype",
    "device",
    "device_map",
    "gguf_file",
    "revision",
    "trust_remote_code",
    "max_tokens",
    "loss_on",
    "score_end",
    "batch_tokens",
    "batch_images",
    "resize",
    "variant",
    "pixels",
    "channels",
    "mean",
    "std",
    "image",
    "caption",
    "skip_unreadable",
)


def _default(name: str) -> object:
    return AuditConfig.model_fields[name].default


def flags_said(error: ValidationError) -> str:
    """What was wrong with which flag, a line each, without pydantic's decoration."""
    lines = []
    for one in error.errors(include_url=False, include_context=False):
        flag = "--" + "-".join(str(part) for part in one["loc"]).replace("_", "-") if one["loc"] else ""
        if one["type"] == "missing":
            lines.append(f"{flag} is required (repromia COMMAND --help explains it)")
            continue
        said = one["msg"].removeprefix("Value error, ")
        lines.append(f"{flag} {said}".strip() + (f" (found {one['input']!r})" if flag else ""))
    return "\n".join(lines)
