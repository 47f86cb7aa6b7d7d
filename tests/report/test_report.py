"""The report: everything in one file, what is missing said in a sentence."""

import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import psutil
import pytest

from wherefrom import process
from wherefrom.config import RunKey, StudyConfig
from wherefrom.process import Helper
from wherefrom.report import Drawing, Material, drawing, write_page, write_report
from wherefrom.report.drawing import SECTIONS
from wherefrom.report.gradients import weighted_gap
from wherefrom.report.numbers import Line, number_table
from wherefrom.report.prose import PROSE
from wherefrom.store import StudyDirectory

from .synthetic_study import Recipe, example_verdicts, variant, write_run, write_study


class Page(HTMLParser):
    """Tags, ids and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> StudyDirectory:
    return write_study(tmp_path_factory.mktemp("report") / "study", variant(cuts=("pos:q,k",), ledger=True))


@pytest.fixture(scope="module")
def page_text(study) -> str:
    return write_report(study.path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(page_text) -> Page:
    return Page(page_text)


def report_of(path, recipe: Recipe, **kwargs) -> Page:
    return Page(write_report(write_study(path / "study", recipe, **kwargs).path).read_text(encoding="utf-8"))


def test_it_holds_every_section_and_every_verdict(page):
    text = " ".join(page.text.split())
    for prose in PROSE.values():
        assert prose.title in text
        assert " ".join(prose.look.split()) in text
        assert " ".join(prose.nothing.split()) in text
    for verdict in example_verdicts():
        assert verdict["sentence"] in text
        assert verdict["verdict"] in text
    assert text.index("Verdicts") < text.index(PROSE["similarity"].title), "verdicts come first"
    opening = "Does the model use positions? Yes: shuffling the patches of test images costs 1.9 nats (1.7 to 2.1)"
    assert text.index(opening) < text.index(example_verdicts()[0]["sentence"]), "and the premise before them"
    assert " .031" in text
    assert "0.0312" not in text
    assert "[0.032, 0.072]" in text
    assert "natural-heads4-seed0" in text


def test_it_loads_nothing_and_is_small(page, page_text):
    loads = [value for name in ("src", "srcset", "action", "data") for value in page.attributes(name)]
    links = page.attributes("href") + page.attributes("xlink:href")
    assert [value for value in loads + links if not value.startswith(("#", "data:"))] == []
    assert not {"script", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"@import|url\((?!#)", page_text)
    assert len(page_text.encode()) < 3e6


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for value in page.attributes("href") + page.attributes("xlink:href") if value.startswith("#")]
    targets += [
        value for attrs in (attrs for _, attrs in page.tags) for value in re.findall(r"url\(#(.+?)\)", str(attrs))
    ]
    assert targets
    assert set(targets) <= set(ids)


def test_every_figure_says_what_it_shows_and_tables_have_headers(page):
    figures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(figures) == 26
    assert all(attrs.get("role") == "img" and len(attrs.get("aria-label", "")) > 20 for attrs in figures)
    assert next(tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)) == "h1"
    assert sum(tag == "table" for tag, _ in page.tags) <= sum(attrs.get("scope") == "row" for _, attrs in page.tags)


def test_its_numbers_are_those_of_the_table(study, page):
    last = study.measurements("similarity_falloff", grid="true", step=40)["value"].item()
    assert f"{last:.2f}" in page.text
    accuracy = study.measurements("accuracy", split="test", step=40)
    mean = accuracy[(accuracy["arm"] == "scrambled")]["value"].mean()
    assert f"{mean:.2f} [" in page.text


def test_the_same_study_gives_the_same_bytes(study, page_text, tmp_path):
    path = write_report(study.path, tmp_path / "again" / "page.html")
    assert path == tmp_path / "again" / "page.html"
    assert path.read_text(encoding="utf-8") == page_text


@pytest.mark.parametrize("program", ["", "import sys; sys.stdin.buffer.read(1)", "print('no pickle', flush=True)"])
def test_the_page_is_the_same_without_a_second_process_and_where_it_dies(
    study, page_text, tmp_path, monkeypatch: pytest.MonkeyPatch, program: str
):
    (tmp_path / "other.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(process, "available_processors", lambda: 2 if program else 1)
    with Drawing(study, Helper("other")) as sections:
        write_page(Material(study), tmp_path / "page.html", sections)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page_text


def test_an_error_in_a_section_is_raised_and_leaves_no_process(study, monkeypatch: pytest.MonkeyPatch):
    def failing(_):
        raise IndexError("of the section")

    monkeypatch.setattr(process, "available_processors", lambda: 2)
    monkeypatch.setattr(drawing, "SECTIONS", (*drawing.SECTIONS, failing))
    before = psutil.Process().children()
    with pytest.raises(IndexError, match="of the section"):
        write_report(study.path)
    assert psutil.Process().children() == before


def test_odd_characters_stay_text(tmp_path):
    odd = "/data/<script>alert(1)</script> & \"'ü"
    verdicts = [{**example_verdicts()[0], "claim": "<b>", "sentence": "<img src=x>", "verdict": "<i>"}]
    recipe = variant(data=odd, arms=("natural",), seeds=1, sweep=())
    study = write_study(tmp_path / "a <b> & study", recipe, verdicts=False)
    study.write_verdicts(verdicts)
    page = Page(write_report(study.path).read_text(encoding="utf-8"))
    assert not {"script", "img", "b", "i"} & {tag for tag, _ in page.tags}
    assert page.text.count(odd) >= 3
    assert "<img src=x>" in page.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ("natural", "scrambled"), "seeds": 1, "pool": "class"}, ["Seeds", "natural (1 seed)"]),
        ({"arms": ("shuffled",), "pos_embed": "none"}, ["No position embedding was recorded", "No advantage"]),
        ({"arms": ("natural",), "num_heads": 1, "depth": 1, "width": 1}, ["Grid of 4 × 1", "1 layer of 1 head."]),
        ({"arms": ("natural",), "depth": 12, "height": 2, "seeds": 1}, ["Grid of 2 × 4", "the same in layer 11"]),
        (
            {"arms": ("scrambled",), "height": 2, "width": 2},
            ["no sweep over head counts", "Similarity falloff"],
        ),
        ({"arms": ("natural",), "steps": 1, "probe_every": 0, "gradient_every": 1}, ["Advantage", "No attention"]),
        ({"arms": ("natural",), "gradient_every": 60, "seeds": 3}, ["all runs have 4 heads"]),
    ],
)
def test_every_shape_of_study_has_a_page(tmp_path, changes, said):
    text = report_of(tmp_path, variant(sweep=(), **changes)).text
    assert all(sentence in " ".join(text.split()) for sentence in said)


def test_a_setting_that_was_varied_has_its_sentence_figure_and_numbers(tmp_path):
    settings = ("patch_size=2", "patch_size=8", "pos_embed=none")
    recipe = variant(arms=("natural",), sweep=(), settings=settings)
    page = report_of(tmp_path, recipe)
    text = " ".join(page.text.split())
    assert "What patch_size changes" in text
    assert "What pos_embed changes" in text
    assert {"setting-patch_size", "setting-pos_embed"} <= set(page.attributes("id"))
    study = StudyDirectory.open(tmp_path / "study")
    table = study.series("patch_size", "accuracy", split="test")
    last = table[table["step"] == 40].pivot_table(index="seed", columns="setting_value", values="value")
    assert list(last.columns) == [2, 4, 8]
    best, own = last.mean().idxmax(), 4
    other = own if best != own else last.mean().drop(own).idxmax()
    gain = 100 * (last[best] - last[other]).mean()
    assert f"Test accuracy was highest at patch_size {best}" in text
    assert f": {gain:.2f} percentage points [" in text
    assert "(paired, 2 seeds (preliminary)" in text
    assert "--vary patch_size 2 8 --vary pos_embed none" in " ".join(page.text.split())
    verdict_figures = study.measurements("accuracy", split="test")
    natural = verdict_figures[(verdict_figures["setting"] == "") & (verdict_figures["step"] == 40)]["value"]
    assert f"{natural.mean():.2f} [" in text  # the arm's own number is not mixed with those of other settings


def test_a_setting_whose_runs_are_not_finished_says_so(tmp_path):
    study = StudyDirectory(tmp_path / "study")
    recipe = variant(arms=("natural",), sweep=(), seeds=1)
    write_study(study.path, recipe)
    study.write_settings(study.settings["train"], 4, [*study.run_keys(), RunKey("natural", 4, 0, "depth=9")])
    page = Page(write_report(study.path).read_text(encoding="utf-8"))
    assert "There is nothing to compare yet: finished runs have 1 value of depth." in page.text


def test_without_verdicts_it_says_so(tmp_path):
    page = report_of(tmp_path, variant(arms=("natural",), seeds=1, sweep=()), verdicts=False)
    assert "has no verdicts yet" in page.text


def test_a_run_that_failed_or_never_started_is_listed_with_its_reason(study, tmp_path):
    shutil.copytree(study.path, tmp_path / "study")
    copy = StudyDirectory.open(tmp_path / "study")
    failed, unstarted = RunKey("natural", 4, 8), RunKey("natural", 4, 9)
    copy.write_settings(copy.settings["train"], copy.num_heads, [*copy.run_keys(), failed, unstarted])
    write_run(copy, failed, Recipe(), end="stopped", reason="the loss was not finite")
    page = Page(write_report(copy.path).read_text(encoding="utf-8"))
    assert "stopped at step 40: the loss was not finite" in page.text
    assert "not started" in page.text
    assert "11 of 13 runs finished" in " ".join(page.text.split())


def test_a_study_of_which_nothing_has_finished_has_a_page(tmp_path):
    study = StudyDirectory(tmp_path / "study")
    study.write_settings({"data": "photos"}, 4, [RunKey("natural", 4, 0)])
    page = Page(write_report(study.path).read_text(encoding="utf-8"))
    assert page.text.count("No run of this study has finished yet") == len(SECTIONS)
    assert "No run has started yet" in page.text


def test_a_folder_that_is_no_study_gets_a_sentence(tmp_path, study):
    with pytest.raises(ValueError, match="is not a study directory"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="expected a file name for the report"):
        write_report(study.path, tmp_path)


def test_settings_that_differ_from_the_defaults_are_marked(page_text):
    rows = re.findall(r"<code>(.*?)</code></th><td>(.*?)</td><td>(.*?)</td>", page_text)
    assert ("steps", "40", str(StudyConfig().steps)) in rows
    assert ("batch_size", "64", "") in rows


def test_the_command_names_the_runs_and_what_is_not_the_default(page_text):
    command = re.sub(r"<.*?>", "", re.findall(r"<pre><code>(.*?)</code></pre>", page_text)[0])
    runs = "--data photos --seeds 2 --control-seeds 2 --heads 1 2 4 --head-seeds 2 --arms natural shuffled scrambled"
    assert command.startswith(f"wherefrom study {runs}")
    assert {"--steps 40", "--model.width 48", "--record.probe-every 20"} <= set(re.findall(r"--\S+ \S+", command))
    assert "batch-size" not in command
    assert "--no-ledger" in command  # none of its runs kept one


def test_the_number_of_the_gradient_is_weighted_by_the_learning_rate():
    head = {"run": "a", "arm": "natural", "measure": "advantage", "layer": 0, "head": 0}
    rows = [
        {**head, "step": step, "relation": relation, "value": value}
        for step, near, far in ((0, 4.0, 1.0), (5, 3.0, 2.0), (10, None, 2.0))
        for relation, value in (("edge", near), ("between", far))
    ]
    rows += [
        {"run": "a", "arm": "natural", "step": step, "measure": "learning_rate", "value": rate}
        for step, rate in ((0, 1.0), (5, 3.0), (10, 9.0))
    ]
    gap = weighted_gap(pd.DataFrame(rows), "advantage", "edge", "between")
    assert gap["value"].tolist() == [(1 * 3.0 + 3 * 1.0) / 4]


def test_small_numbers_share_a_power_of_ten_that_stands_with_the_unit():
    rows = pd.DataFrame({"run": ["a", "a", "b"], "value": [0.001, 0.003, 0.004]})
    table = number_table([Line("pull", "nats", {"natural": rows, "scrambled": rows[:2]})])
    assert table.columns == ("natural (2 seeds)", "scrambled (1 seed)")
    (label, (natural, scrambled)), = table.rows  # fmt: skip
    assert label == "pull (10⁻³ nats)"
    assert natural.startswith("3.00 [")
    assert scrambled == "2.00"


def test_lines_of_one_scale_share_their_power_of_ten():
    small, large = (pd.DataFrame({"run": ["a"], "value": [value]}) for value in (0.00001, 0.002))
    rows = number_table([Line(name, "", {"": own}, "s") for name, own in (("x", small), ("y", large))]).rows
    assert [label for label, _ in rows] == ["x (10⁻³)", "y (10⁻³)"]


def test_details_of_verdicts_are_plain_json_and_can_be_nested(tmp_path):
    study = write_study(tmp_path / "study", variant(arms=("natural",), seeds=1, sweep=()), verdicts=False)
    details = {
        "title": "A title.",
        "p_adjusted": 0.0312,
        "layers": [{"layer": 3, "statistic": 1.5, "interval": [1, 2.5]}],
        "none": None,
    }
    study.write_verdicts(json.loads(json.dumps([{**example_verdicts()[0], "details": details}])))
    text = Page(write_report(study.path).read_text(encoding="utf-8")).text
    assert "C0 · A title" in text
    assert "0.031" in text
    assert re.search(r"layer 3\s*1.50 \[1.00, 2.50\]", text)
