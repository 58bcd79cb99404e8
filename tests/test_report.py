"""The report is one self-contained, well-formed, honest page, whatever the records contain."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from repromia.picture_values import picture_of
from repromia.report import Excerpt, RocPoints, plots, render_html, words
from repromia.report.thumbnails import data_uri
from repromia.report.vocabulary import vocabulary
from repromia.result import (
    AttackResult,
    AuditResult,
    BlindResult,
    Duplicates,
    Estimate,
    Exposed,
    Finding,
    Gain,
    Kind,
    NullRow,
    NullTarget,
    Permuted,
    ProbeFamily,
    RecordsSummary,
    RoleSizes,
    TprAtFpr,
)

HEADLINE = "learned_prefix:length=20"
HEADLINE_SENTENCE = (
    "Asked under a learned prefix, the model tells members from non-members better than guessing: "
    "AUC 0.634 [0.597, 0.671]."
)


def estimate(middle: float, half: float = 0.037) -> Estimate:
    return Estimate(estimate=middle, low=middle - half, high=middle + half, method="DeLong")


def row(name: str, kind: Kind, auc: float, **changes: Any) -> AttackResult:
    fields: dict[str, Any] = {
        "name": name,
        "attack": name.split(":")[0],
        "kind": kind,
        "access": "nothing" if kind == "blind" else "log-probabilities",
        "citation": "Shi et al. 2024, equation 1",
        "auc": estimate(auc),
        "tpr_at_fpr": (
            TprAtFpr(fpr=0.1, status="measured", tpr=0.21, low=0.17, high=0.25, smallest_visible=0.14),
            TprAtFpr(fpr=0.01, status="coarse", tpr=0.024, low=0.008, high=0.051, smallest_visible=0.03),
            TprAtFpr(fpr=0.001, status="refused", reason="needs about 3,000 non-members, there are 500"),
        ),
        "select_auc": auc + 0.01,
        "n_members": 500,
        "n_nonmembers": 500,
        "seconds": 83.2,
        "forward_passes": 1.0,
    }
    return AttackResult(**{**fields, **changes})


def failed(name: str, kind: Kind = "reference") -> AttackResult:
    return AttackResult(
        name=name,
        attack=name.split(":")[0],
        kind=kind,
        access="log-probabilities",
        status="failed",
        reason="reference <b>gpt</b> has another vocabulary",
    )


ATTACKS = (
    row("loss", "passive", 0.561),
    row("min_k:k=0.1", "passive", 0.578),
    row("zlib", "passive", 0.569, needs=("text",)),
    row("min_k:k=0.2", "passive", 0.575),
    row(HEADLINE, "reprogrammed", 0.634, forward_passes=12.0),
    row("recall", "reprogrammed", 0.611),
    row("logistic_head", "head", 0.602),
    failed("ratio:reference=gpt"),
)
GAINS = (
    Gain(attack=HEADLINE, over="min_k:k=0.1", role="best_passive", auc=estimate(0.056, 0.03),
         tpr_at_fpr=((0.01, estimate(0.012, 0.02)),)),
    Gain(attack=HEADLINE, over="logistic_head", role="same_supervision", auc=estimate(0.032, 0.04)),
    Gain(attack=HEADLINE, over="words", role="blind", auc=estimate(0.11, 0.04)),
    Gain(attack="recall", over="loss", role="identity", auc=estimate(-0.05, 0.03)),
)  # fmt: skip


BLIND = BlindResult(name="words", cross_validated_auc=estimate(0.524), fitted=row("words", "blind", 0.519))
PERMUTED = (
    Permuted(name="logistic_head", compared_with=0.5, repeats=50, mean=0.502, low=0.49, high=0.51, passed=True),
    Permuted(name=HEADLINE, compared_with=0, repeats=3, mean=0.03, low=0.01, high=0.05, passed=False),
)
CONFIG = {"seed": 0, "attacks": ["loss", "zlib"], "learn": {"steps": 200, "rate": 0.01, "device": None}}


def a_result(**changes: Any) -> AuditResult:
    fields: dict[str, Any] = {
        "status": "complete_with_failures",
        "created": "2026-11-23T13:00:00+00:00",
        "modality": "language",
        "target": {"name": "smollm2-135m", "parameters": 134515008, "dtype": "float32"},
        "reference": None,
        "records": RecordsSummary(
            n_members=1500,
            n_nonmembers=1500,
            grouped=False,
            roles=RoleSizes(fit=(700, 700), select=(300, 300), eval=(500, 500)),
            duplicates=Duplicates(exact_across=2, near_across=1, excluded=("a", "b", "c")),
            digest="sha256:0123456789abcdef",
        ),
        "headline": HEADLINE,
        "headline_rule": "best AUC on the select role among 7 attacks.",
        "attacks": ATTACKS,
        "gains": GAINS,
        "blind": (BLIND,),
        "null_target": NullTarget(status="not_available", reason="no second checkpoint was given"),
        "permuted": PERMUTED,
        "findings": (
            Finding(code="headline", level="headline", sentence=HEADLINE_SENTENCE),
            Finding(code="no_null", level="warning", sentence="No null target was available."),
            Finding(code="device", level="note", sentence="Everything ran on the CPU."),
        ),
        "exposed": (
            Exposed(id="news-17", score=3.25, nonmember_share=0.0),
            Exposed(id="news-4", score=2.5, nonmember_share=0.012),
        ),
        "exposed_by": HEADLINE,
        "views": ({"target": "smollm2-135m", "program": "identity", "records": 3000, "seconds": 81.5},
                  {"target": "smollm2-135m", "program": HEADLINE, "seconds": 640.25, "cached": True}),
        "seconds": 812.0,
        "config": CONFIG,
        "versions": {"repromia": "0.1.0", "torch": "2.13.0"},
        "key": "9f2c11aa",
    }  # fmt: skip
    return AuditResult(**{**fields, **changes})


def roc(strength: float, n: int = 500, seed: int = 0) -> RocPoints:
    generator = np.random.default_rng(seed)
    scores = np.concatenate([generator.normal(strength, 1, n), generator.normal(0, 1, n)])
    member = (np.arange(2 * n) < n)[np.argsort(-scores)]
    return RocPoints(np.concatenate([[0.0], np.cumsum(~member) / n]), np.concatenate([[0.0], np.cumsum(member) / n]))


def curves_of(result: AuditResult, n: int = 500) -> dict[str, RocPoints]:
    rows = [line for line in words.table_rows(result) if line.auc is not None]
    return {
        line.name: roc(4 * (line.auc.estimate - 0.5), n, seed) for seed, line in enumerate(rows) if line.auc is not None
    }


def page(result: AuditResult | None = None, excerpts: Mapping[str, str] | None = None) -> str:
    result = result or a_result()
    shown = {name: Excerpt(text) for name, text in (excerpts or {}).items()}
    return render_html(result, curves=curves_of(result), excerpts=shown)


class Balanced(HTMLParser):
    """Raises on a tag that is closed out of order, collects ids and text."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def text_of(html: str) -> str:
    return " ".join(" ".join(parsed(html).text).split())


def only_our_script(html: str) -> bool:
    """One script, whose hash is the only one that the page lets run."""
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    allowed = base64.b64encode(sha256(script.encode()).digest()).decode()
    return html.count("<script") == 1 and re.findall(r"script-src '([^']*)'", html) == [f"sha256-{allowed}"]


def first_screen(html: str) -> str:
    return text_of(html[html.index("<header") : html.index("</header>") + 9])


def test_loads_nothing_from_outside() -> None:
    html = page()
    assert only_our_script(html)
    for word in ("http:", "https:", "src=", "@import", "<link", "<img", "<iframe", "xlink"):
        assert word not in html
    assert set(re.findall(r'href="(.)', html)) == {"#"}
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html


def test_tags_are_balanced_and_ids_unique() -> None:
    parser = parsed(page())
    assert len(parser.ids) == len(set(parser.ids))


def test_internal_links_lead_somewhere() -> None:
    html = page()
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(parsed(html).ids)


def test_twice_the_same_bytes() -> None:
    assert page() == page()


def test_every_attack_finding_and_reason_is_there() -> None:
    text = text_of(page())
    for name in (*(line.name for line in ATTACKS), "words"):
        assert name in text
    for sentence in (HEADLINE_SENTENCE, "No null target was available.", "Everything ran on the CPU."):
        assert sentence in text
    assert "could not be measured: reference <b>gpt</b> has another vocabulary" in text
    assert "needs about 3,000 non-members, there are 500" in text
    assert "not available: no second checkpoint was given" in text
    assert "below 3.0 %, the least that could be told from chance" in text
    assert "not as expected" in text
    assert "learn.steps" in text


def test_first_screen_has_the_figure_with_its_interval() -> None:
    screen = first_screen(page())
    assert screen.index(HEADLINE_SENTENCE) < screen.index("No null target was available.")
    assert "0.634 [0.597, 0.671]" in screen
    assert "2.4 % [0.8, 5.1]" in screen
    assert "1 of 9 attacks gave no figure" in screen


def test_failed_headline_shows_no_number_and_no_comfort() -> None:
    attacks = (*ATTACKS[:4], failed(HEADLINE, "reprogrammed"))
    findings = (Finding(code="failed", level="headline", sentence="The headline attack failed."),)
    result = a_result(attacks=attacks, findings=findings, gains=(), exposed=(), exposed_by="")
    screen = first_screen(page(result))
    assert "could not be measured: reference <b>gpt</b> has another vocabulary" in screen
    answer = screen.split("trained on?")[1].split("Incomplete.")[0]
    assert "AUC" in answer
    assert re.search(r"\d\.\d|\d %", answer) is None
    assert "low risk" not in text_of(page(result))


def test_missing_headline_is_said() -> None:
    assert "There is none: no row is named “nothing”." in first_screen(page(a_result(headline="nothing")))


def test_refused_headline_rate_is_said() -> None:
    refused = (TprAtFpr(fpr=0.01, status="refused", reason="only 60 non-members"),)
    attacks = (row(HEADLINE, "reprogrammed", 0.6, tpr_at_fpr=refused),)
    screen = first_screen(page(a_result(attacks=attacks, gains=())))
    assert "could not be measured: only 60 non-members" in screen


def test_measured_null_target() -> None:
    rows = (
        NullRow(name="loss", status="measured", auc=estimate(0.507)),
        NullRow(name="recall", status="failed", reason="out of memory"),
    )
    null = NullTarget(status="measured", target="other", reference="copy", rows=rows, joint_p=0.31)
    text = text_of(page(a_result(null_target=null)))
    assert text.count("0.507 [0.470, 0.544]") == 2  # beside the attack and among the controls
    assert "p = 0.31" in text
    assert "could not be measured: out of memory" in text
    assert "not asked of the null target" in text


HOSTILE = {
    "script": ("<script>alert(1)</script><img src=x onerror=alert(1)>", "<script>alert(1)</script><img"),
    "rtl": ("abc\u202egpj.exe\u2066", "abc⟨U+202E⟩gpj.exe⟨U+2066⟩"),
    "nul": ("a\x00b\x1b[31m\x7f", "a⟨U+0000⟩b⟨U+001B⟩[31m⟨U+007F⟩"),
    "surrogate": ("a\ud800b", "a⟨U+D800⟩b"),
    "emoji": ("👩\u200d🚀 ok {{ 7 * 7 }} {% raw %}", "👩\u200d🚀 ok {{ 7 * 7 }} {% raw %}"),
    "lines": ("one\r\ntwo\nthree", "one ↵ two ↵ three"),
    "template": ("]]> --> </svg></table>", "]]> --> </svg></table>"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_excerpts_are_shown_and_harmless(kind: str) -> None:
    given, shown = HOSTILE[kind]
    html = page(excerpts={"news-17": given})
    assert only_our_script(html)
    assert "<img" not in html
    assert not re.search("[\x00\u202a-\u202e\u2066-\u2069]", html)
    html.encode("utf-8")
    assert shown in text_of(html)


def test_hostile_names_are_harmless_everywhere() -> None:
    name = "<script>x</script>$\\frac$ \u202e 漢字 -->"
    attacks = (row(name, "reprogrammed", 0.6),)
    gain = Gain(attack=name, over=name, role="identity", auc=estimate(0.0))
    exposed = (Exposed(id="</td><script>\u202e", score=1.0, nonmember_share=0.5),)
    html = page(a_result(attacks=attacks, headline=name, gains=(gain,), exposed=exposed, exposed_by=name))
    assert only_our_script(html)
    assert "\u202e" not in html
    parsed(html)


def test_long_excerpts_are_cut() -> None:
    html = page(excerpts={"news-17": "x" * 100_000})
    assert "x" * 300 in html
    assert "x" * 301 not in html
    assert "(cut)" in html


def test_without_excerpts_only_ids() -> None:
    html = page()
    assert "news-17" in html
    assert "Excerpt" not in html


def test_chance_is_stated_for_exposed_members() -> None:
    text = text_of(page())
    assert "none of 500" in text
    assert "at most 3.0" in text
    assert "1.2 %" in text
    assert "6.0" in text


def test_thirty_large_curves_stay_below_a_megabyte() -> None:
    kinds: tuple[Kind, ...] = ("passive", "reprogrammed", "head", "reference", "blind")
    attacks = tuple(row(f"attack_{i}", kinds[i % 5], 0.5 + i / 200, n_nonmembers=5000) for i in range(30))
    gains = tuple(Gain(attack=f"attack_{i}", over="attack_0", role="identity", auc=estimate(0.01)) for i in range(30))
    result = a_result(attacks=attacks, gains=gains)
    html = render_html(result, curves=curves_of(result, n=5000), excerpts={})
    assert len(html.encode()) < 1_000_000
    parsed(html)


def test_thinned_curve_keeps_low_fpr_and_shape() -> None:
    points = roc(1.0, n=5000)
    thin = plots.thin_out(points, smallest=1e-4, per_decade=100)
    assert len(thin.fpr) < len(points.fpr) / 5

    def best(curve: RocPoints, fpr: float) -> float:
        return float(curve.tpr[np.searchsorted(curve.fpr, fpr, side="right") - 1])

    for fpr in np.arange(1, 30) / 5000 + 1e-9:
        assert best(thin, fpr) == best(points, fpr)
    for fpr in (0.013, 0.05, 0.2, 0.7):
        assert best(thin, fpr) == pytest.approx(best(points, fpr), abs=0.02)


def test_no_curves_no_gains_no_controls() -> None:
    result = a_result(gains=(), blind=(), permuted=(), exposed=(), attacks=(failed("loss"),), headline="loss")
    text = text_of(render_html(result, curves={}, excerpts={}))
    assert "There are no curves to draw." in text
    assert "No blind baseline was run" in text


def test_labelled_curves_of_one_kind_look_different() -> None:
    lines = plots.line_styles(["passive"] * 8, headline=None)
    assert len({line.dash for line in lines}) == 8
    assert all(line.dash for line in plots.line_styles(["blind"] * 3, headline=0))


def test_twenty_pictures_leave_the_page_below_a_megabyte() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 300, 200, 3), dtype=np.uint8)
    exposed = tuple(Exposed(id=f'm:"{row}"<b>.png', score=1.0, nonmember_share=0.1) for row in range(20))
    result = a_result(exposed=exposed)
    excerpts = {
        one.id: Excerpt("a <script>caption</script>", data_uri(picture_of(pixels)))
        for one, pixels in zip(exposed, noise, strict=True)
    }
    html = render_html(result, curves=curves_of(result, n=5000), excerpts=excerpts)
    assert len(html.encode()) < 600_000
    assert html.count("<img") == html.count('src="data:image/png;base64,') == 20
    assert html.count('alt="Picture m:&#34;') == 20
    assert only_our_script(html)
    assert "a <script>caption</script>" in text_of(html)
    first = html.split('src="data:image/png;base64,')[1].split('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(first))).size == (64, 96)


def test_thumbnails_keep_small_pictures_and_miss_lost_ones(tmp_path: Path) -> None:
    digit = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    shown = base64.b64decode(data_uri(picture_of(digit)).removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))), digit[:, :, 0])
    Image.fromarray(digit[:, :, 0]).save(tmp_path / "a.png")
    lost = picture_of(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert data_uri(lost) == ""


FAMILY = ProbeFamily(
    attack=HEADLINE, family="flip", programs=("flip",), gain=None, passes=4, seconds=0, relative_tokens=2.0
)


@pytest.mark.parametrize("modality", ["language", "diffusion"])
def test_a_report_speaks_of_the_kind_of_model(modality: str) -> None:
    rows = tuple(row(name, "passive", 0.6, access="predictions") for name in ("naive", "pia"))
    views = ({"program": "clean", "tokens": 12},)
    result = a_result(modality=modality, attacks=rows, headline="naive", families=(FAMILY,), views=views, gains=())
    shown = text_of(render_html(result, curves=curves_of(result), excerpts={}))
    of_language = ("tokens", "Noise and repair", "model or text", "read back from an earlier run", "forward passes")
    of_diffusion = ("denoiser", "Timestep", "evaluations are shared", "Cost in evaluations")
    for words_ in (of_language, of_diffusion):
        said = [one for one in words_ if one in shown]
        assert said == (list(words_) if (words_ is of_language) == (modality == "language") else [])
    assert "Program, bank" in shown


def test_a_kind_of_model_without_words_of_its_own_gets_those_that_fit_any() -> None:
    plain = vocabulary("graph")
    assert "token" not in repr(plain)
    assert "denoiser" not in repr(plain)
    assert words.kind_words("reference", "graph") == "compared with a second model"
