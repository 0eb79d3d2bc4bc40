"""The page, driven in a browser: it needs no network, and what comes from runs is text."""

import importlib
import sys

import pytest

from harness.report.formats.html import pack, to_html
from tests.support.browser import needs_chromium, opened
from tests.support.paths import ROOT
from tests.support.reports import NASTY, report_of, rewrite, three_methods, write_run


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    records = three_methods(folder)
    error = {"type": "E", "message": NASTY, "hint": NASTY, "traceback": ""}
    write_run(folder, "bitfit", 0, status="failed", error=error)
    plan = records[0]["plan"]
    rewrite(folder, records[0] | {"plan": plan | {"settings": plan["settings"] | {"init_lora_weights": NASTY}}})
    return folder


@pytest.fixture(scope="module")
def page_file(runs_dir, tmp_path_factory):
    report = report_of(runs_dir, title=f"Title {NASTY}", chosen=NASTY, commands=(NASTY,), notes=(NASTY,))
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(to_html(report), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def page(page_file):
    with opened(page_file) as page:
        yield page


def test_the_page_has_no_markup_of_runs_and_names_no_other_file(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "\x1b" not in text
    assert not any(word in text for word in ('src="http', 'href="http', "@import", "url(http"))


def test_equal_contents_are_packed_into_equal_texts():
    assert pack({"a": 1}) == pack({"a": 1})


@needs_chromium
class TestInChromium:
    """One page for all tests: each leaves it as it was or does not care."""

    pytestmark = pytest.mark.slow

    def test_it_opens_without_errors_and_requests(self, page):
        page.wait("document.documentElement.dataset.ready === 'true'")
        page.wait("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
        assert page.requests == []
        assert page.messages == []
        assert page.text("h1").startswith("Title <script>alert('x')</script>")
        assert page.count("section.group") == 1
        kinds = page.value("[...document.querySelectorAll('figure[data-plot]')].map((each) => each.dataset.plot)")
        assert kinds == ["pareto", "axis", "rate", "curves", "forgetting"]

    def test_a_heading_sorts_and_unknown_values_stay_last(self, page):
        heads = "[...document.querySelectorAll('table.runs thead th')]"
        place = page.value(f"{heads}.findIndex((head) => head.textContent.startsWith('exact_match'))")
        rows = "[...document.querySelectorAll('table.runs tbody tr')]"
        values = f"{rows}.map((row) => Number(row.cells[{place}].dataset.v))"
        page.click("table.runs thead th:has-text('exact_match') button")
        first = page.value(values)
        assert first == sorted(first)
        page.click("table.runs thead th:has-text('exact_match') button")
        assert page.value(values) == sorted(first, reverse=True)
        assert page.value("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"

    def test_words_and_a_method_filter(self, page):
        shown = "[...document.querySelectorAll('table.runs tbody tr')].filter((row) => !row.hidden).length"
        page.fill("input.filter", "lora r=8")
        assert page.value(shown) == 1
        assert "1 of 6 rows" in page.text(".group output")
        page.fill("input.filter", "")
        page.select("select.method", "full")
        assert page.value(shown) == 2
        page.select("select.method", "")
        assert page.value(shown) == 6

    def test_hovering_shows_setting_and_interval(self, page):
        page.value("document.querySelector('figure[data-plot=pareto]').scrollIntoView()")
        page.wait("document.querySelector('figure[data-plot=pareto] .plot').dataset.drawn")
        page.hover("figure[data-plot=pareto] .scatterlayer .points path:last-child")
        page.wait("document.querySelector('figure[data-plot=pareto] .hoverlayer text') !== null")
        hover = page.value("document.querySelector('figure[data-plot=pareto] .hoverlayer').textContent")
        assert "n = " in hover
        assert "trainable" in hover

    def test_score_and_axis_of_a_plot_can_be_chosen(self, page):
        page.select("figure[data-plot=pareto] label:has-text('score') select", "loss")
        page.select("figure[data-plot=pareto] label:has-text('cost') select", "adapter_bytes")
        page.wait("document.querySelector('figure[data-plot=pareto] .ytitle').textContent.startsWith('loss')")
        assert page.value("document.querySelector('figure[data-plot=pareto] .xtitle').textContent") == "adapter MiB"

    def test_answers_are_shown_filtered_and_marked(self, page):
        page.value("document.querySelector('.answers').scrollIntoView()")
        page.wait("document.querySelectorAll('.answer').length === 4")
        assert NASTY.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e") in page.text(
            ".answer:nth-of-type(4) .prompt"
        )
        assert page.count(".answer script") == 0
        page.select(".answers label:has-text('show') select", "became right")
        page.wait("document.querySelectorAll('.answer').length < 4")
        assert page.count(".answer del") >= 1
        assert page.count(".answer ins") >= 1
        assert page.count(".answer .texts > div:nth-child(2) .wrong") == 0
        page.fill(".answers input[type=search]", "color")
        page.wait("document.querySelectorAll('.answer').length === 1")
        page.fill(".answers input[type=search]", "")
        page.select(".answers label:has-text('show') select", "all")

    def test_a_run_of_the_table_opens_its_answers(self, page):
        run = page.value("document.querySelector('button.run').dataset.run")
        page.click("button.run >> nth=0")
        assert page.value("document.querySelector('.answers select').value") == run

    def test_two_runs_are_compared(self, page):
        page.value("document.getElementById('compare').scrollIntoView()")
        page.wait("document.querySelectorAll('#difference tbody tr').length > 3")
        before = page.count("#difference tbody tr")
        assert "settings.r" in page.text("#difference")
        page.click("#equal")
        page.wait(f"document.querySelectorAll('#difference tbody tr').length > {before}")
        page.click("#equal")

    def test_the_theme_follows_the_button(self, page):
        page.click("#theme")
        page.click("#theme")
        assert page.value("document.documentElement.dataset.theme") == "dark"
        assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(17, 22, 28)"
        page.click("#theme")

    def test_nothing_ran_and_nothing_was_asked_for_by_then(self, page):
        assert page.requests == []
        assert page.messages == []

    def test_a_narrow_page_does_not_scroll_sideways(self, page_file):
        with opened(page_file, width=400) as narrow:
            narrow.wait("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
            wide = "[...document.querySelectorAll('body *')].filter((each) => each.getBoundingClientRect().right > 401)"
            outside = f"{wide}.filter((each) => !each.closest('.scroll, .plot')).map((each) => each.outerHTML)"
            assert narrow.value(outside) == []
            assert narrow.value("document.documentElement.scrollWidth") <= 400

    def test_it_prints(self, page_file, tmp_path):
        with opened(page_file) as page:
            page.wait("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
            page.pdf(tmp_path / "page.pdf")
        assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@pytest.fixture
def many(monkeypatch):
    """``multiplied`` of the script that measures how fast pages open."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench"))
    yield importlib.import_module("report_page").multiplied
    sys.modules.pop("report_page", None)


@needs_chromium
@pytest.mark.slow
def test_a_thousand_runs_are_rows_of_one_page(runs_dir, tmp_path, many):
    report = many(report_of(runs_dir), 1000)
    file = tmp_path / "report.html"
    file.write_text(to_html(report), encoding="utf-8")
    with opened(file, wait=False) as page:
        page.wait("document.documentElement.dataset.ready === 'true'")
        assert page.count("table.runs tbody tr") == 1000
        assert page.messages == []
