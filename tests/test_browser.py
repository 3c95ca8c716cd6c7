"""The finished book in a real browser: every page in light, in dark, and on a slow phone."""

import gzip
import hashlib
import io
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urlparse

import numpy as np
import pytest
import test_plots
from PIL import Image

from tools import pages as pages_extension

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
VIEWS = {"desktop": DESKTOP, "phone": PHONE}

# Runs before anything of the page does.
WATCH = """
  window.shifts = [];
  new PerformanceObserver(list => list.getEntries().forEach(e => shifts.push(e.value)))
    .observe({ type: "layout-shift", buffered: true });
"""

# Through the page as a reader goes, so that everything that comes late has come.
SCROLL = """async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
    scrollTo(0, y);
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  }
  for (const image of [...document.images].filter(i => i.checkVisibility())) {
    image.scrollIntoView();
    await image.decode().catch(() => {});
  }
  await document.fonts.ready;
  scrollTo(0, 0);
}"""

# What a page says of itself.
FACTS = """() => {
  const all = selector => [...document.querySelectorAll(selector)];
  const name = e => e.outerHTML.slice(0, 120);
  const wide = e => /auto|scroll/.test(getComputedStyle(e).overflowX)
    && e.scrollWidth > e.clientWidth + 1;
  const scrolls = all(".bd-content *").filter(e => e.checkVisibility() && wide(e));
  const figure = i => i.loading === "lazy" && i.alt && i.alt.trim() !== "" && i.naturalWidth
    && Math.abs(i.getAttribute("width") / i.getAttribute("height")
                / (i.naturalWidth / i.naturalHeight) - 1) < 0.01;
  return {
    lang: document.documentElement.lang,
    ids: all("[id], a[name]").map(e => e.id || e.name),
    links: all("a[href]").map(a => a.href),
    headings: all("main :is(h1, h2, h3, h4, h5, h6)")
      .filter(e => e.checkVisibility()).map(e => Number(e.tagName[1])),
    figures: all(".bd-article img").length,
    badFigures: all(".bd-article img").filter(i => !figure(i)).map(name),
    scrolls: scrolls.length,
    shut: scrolls.filter(e => e.tabIndex !== 0).map(name),
    secret: scrolls.filter(e => !getComputedStyle(e).backgroundAttachment.includes("local"))
      .map(name),
    tooWide: document.documentElement.scrollWidth - innerWidth,
    shift: shifts.reduce((sum, shift) => sum + shift, 0),
  };
}"""

# axe looks at every line of every word: of code it gets one word of each kind on each ground,
# and room for the rest; of formulas their room, since they have the colour of the text around
# them. A shadow at an edge is a picture behind the words, before which axe gives up.
THIN = """() => {
  const style = document.createElement("style");
  style.textContent = "* { transition: none !important }"
    + ".bd-content * { background-image: none !important }";
  document.head.append(style);
  const all = selector => [...document.querySelectorAll(selector)];
  const room = (width, height) => {
    const e = document.createElement("span");
    e.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
    return e;
  };
  const formulas = all(".katex").map(e => [e, e.getBoundingClientRect()]);
  const codes = all("pre").map(e => [e, e.clientHeight, e.scrollWidth > e.clientWidth ? 9999 : 0]);
  const kind = word => [word.className, getComputedStyle(word).color,
                        getComputedStyle(word.closest("pre")).backgroundColor].join();
  const first = new Map(all("pre, pre span").filter(word => word.textContent.trim())
    .map(word => [kind(word), word]).reverse());
  const words = new Set(first.values());
  const kept = codes.map(([e]) => [...e.querySelectorAll("span")].filter(w => words.has(w)));
  formulas.forEach(([e, box]) => e.replaceChildren(room(box.width, box.height)));
  codes.forEach(([e, height, width], i) => {
    e.style.cssText = `box-sizing: border-box; height: ${height}px; white-space: normal`;
    e.replaceChildren(words.has(e) ? "code " : "", ...kept[i].flatMap(word => [word, " "]),
                      room(width, 1));
  });
}"""


class Eye:
    """A browser's window, and what goes wrong in it."""

    def __init__(self, browser, **options):
        self.problems, self.asked = [], []
        self.phone = options.get("is_mobile", False)
        self.context = browser.new_context(**options)
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self.note)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def note(self, message):
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def slow_down(self, times):
        self.session = getattr(self, "session", None) or self.context.new_cdp_session(self.page)
        self.session.send("Emulation.setCPUThrottlingRate", {"rate": times})

    def elsewhere(self, home):
        """The addresses asked for that do not begin as the book's own do."""
        return [url for url in self.asked if not url.startswith((home, "data:"))]

    def axe(self, **options):
        """What axe finds: rule and element."""
        from axe_playwright_python.sync_playwright import Axe

        always = {"resultTypes": ["violations"], "preload": False}
        found = Axe().run(self.page, options=always | options)
        return [
            f"{rule['id']}: {node['html'][:150]}"
            for rule in found.response["violations"]
            for node in rule["nodes"]
        ]

    def facts(self):
        self.page.evaluate(SCROLL)
        return SimpleNamespace(**self.page.evaluate(FACTS))


def look(eye, address, axe=True):
    """Everything that the tests below ask of one page, found in one visit."""
    eye.problems, eye.asked = [], []
    eye.page.emulate_media(color_scheme="light")
    if eye.phone:
        eye.slow_down(4)
    eye.page.goto(address)
    eye.page.evaluate("document.fonts.ready.then(() => scrollBy(0, 400))")
    eye.page.wait_for_timeout(100)
    if eye.phone:
        eye.slow_down(1)
    seen = eye.facts()
    seen.asked, seen.problems, seen.axe = eye.asked, eye.problems, {}
    if axe:
        eye.page.evaluate(THIN)
        seen.axe["phone" if eye.phone else "light"] = eye.axe()
    if axe and not eye.phone:
        eye.page.emulate_media(color_scheme="dark")
        eye.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        seen.axe["dark"] = eye.axe(runOnly=["color-contrast", "link-in-text-block"])
    return seen


def names(html):
    """The pages of the book, as they are found: all but the one that leads to the first."""
    found = (file for file in html.rglob("*.html") if "<title>" in file.read_text("utf-8"))
    return sorted(str(file.relative_to(html)) for file in found)


@pytest.fixture(scope="module", params=VIEWS)
def pages(browser, html, request):
    """{name: page as seen} of every page of the book, on a desktop, then on a slow phone."""
    eye = Eye(browser, **VIEWS[request.param])
    seen = {name: look(eye, (html / name).as_uri()) for name in names(html)}
    eye.context.close()
    return seen


def by_page(pages, found):
    """{page: what was found} where something was."""
    return {name: what for name, page in pages.items() if (what := found(page))}


# --- self-contained --------------------------------------------------------------------------


def test_every_page_is_looked_at(pages, html):
    contents = (html.parent.parent / "_toc.yml").read_text("utf-8")
    listed = {f"{name}.html" for name in re.findall(r"(?:root|file): *(\S+)", contents)}
    assert listed | {"genindex.html", "search.html"} <= set(pages)


def test_no_page_from_disk_asks_another_host(pages, html):
    home = html.as_uri()
    others = by_page(pages, lambda p: [u for u in p.asked if not u.startswith((home, "data:"))])
    assert others == {} and all(page.asked for page in pages.values())


def test_no_page_complains(pages):
    assert by_page(pages, lambda p: p.problems) == {}


@pytest.fixture(scope="module")
def served(browser, server, html):
    """A window that has been on every page of the server, and {page: ms to its first paint}."""
    eye = Eye(browser, **DESKTOP)
    paint = {name: first_paint(eye, server + name) for name in names(html)}
    yield eye, paint
    eye.context.close()


def first_paint(eye, address):
    eye.page.goto(address)
    entry = "performance.getEntriesByName('first-contentful-paint')[0]"
    return eye.page.wait_for_function(entry).evaluate("paint => paint.startTime")


def test_a_served_book_needs_no_other_host_either(served, server):
    eye, _ = served
    eye.page.goto(server)
    eye.page.wait_for_url("**/00_welcome.html")
    assert eye.problems == [] and eye.elsewhere(server) == []


def test_without_javascript_a_chapter_is_all_there(browser, html):
    for options in (DESKTOP, {**PHONE, "color_scheme": "dark"}):
        eye = Eye(browser, java_script_enabled=False, **options)
        page = eye.page
        page.goto((html / "notebooks/04_l2.html").as_uri())
        assert page.locator(".bd-article h1").is_visible()
        assert page.locator(".katex-display .katex-html").first.is_visible()
        assert page.locator(".katex-display math").first.text_content()
        page.locator("details.solution > summary").first.click()
        assert page.locator("details.solution p").first.is_visible()
        assert page.locator(".bd-article img").first.is_visible()
        assert page.get_by_role("link", name="Glossary").is_visible()
        for useless in ("#pst-back-to-top", ".sidebar-toggle", ".theme-switch-button"):
            assert page.locator(useless).count(), useless
            assert not page.locator(useless).first.is_visible(), useless
        text, ground = (
            page.locator(where).first.evaluate(f"e => getComputedStyle(e).{what}")
            for where, what in [(".highlight pre", "color"), (".highlight pre", "backgroundColor")]
        )
        assert contrast(text, ground) > 7
        eye.context.close()


# --- fast ------------------------------------------------------------------------------------


@cache
def weight(address):
    """The bytes of a file as servers usually send it: by gzip -6 unless compressed already."""
    file = Path(unquote(urlparse(address).path))
    content = file.read_bytes()
    ready = file.suffix in {".webp", ".png", ".woff2"}
    return len(content if ready else gzip.compress(content, 6))


def kilobytes(addresses):
    return sum(map(weight, {urlparse(a)._replace(query="").geturl() for a in addresses})) / 1000


def further(pages):
    """{name: kilobytes} of each page, read to its end, apart from what every chapter needs."""
    chapters = [set(page.asked) for name, page in pages.items() if name.startswith("notebooks")]
    everywhere = set.intersection(*chapters)
    return {name: kilobytes(set(page.asked) - everywhere) for name, page in pages.items()}


def test_a_first_visit_is_at_most_700_kilobytes(pages):
    """Read to the last figure."""
    heavy = {name: kilobytes(page.asked) for name, page in pages.items()}
    assert {name: kb for name, kb in heavy.items() if kb > 700} == {}
    assert min(heavy.values()) > 100


def test_each_further_page_is_at_most_150_kilobytes(pages):
    heavy = further(pages)
    assert {name: kb for name, kb in heavy.items() if kb > 150} == {}
    assert max(heavy.values()) > 40


def test_a_page_is_painted_within_600_milliseconds(served):
    """The middle one of all pages: one alone waits when something else takes the processor."""
    _, paint = served
    assert np.median(list(paint.values())) < 600


def test_nothing_moves_while_a_page_loads(pages):
    assert by_page(pages, lambda page: page.shift if page.shift > 0.02 else None) == {}


def test_figures_say_their_size_and_come_when_needed(pages):
    assert by_page(pages, lambda page: page.badFigures) == {}
    assert sum(page.figures for page in pages.values()) > 60


def test_figures_look_the_same_in_fewer_bytes(html):
    pictures = sorted((html.parent / "jupyter_execute").rglob("*.png"))
    for png in pictures:
        name = hashlib.sha256(pages_extension.SOURCE + png.read_bytes()).hexdigest()
        webp = html / "_images" / f"{name}.webp"
        with Image.open(png) as before, Image.open(webp) as now:
            assert same_to_the_eye(before, now)
        assert webp.stat().st_size < 0.6 * png.stat().st_size
    assert len(pictures) > 50


def same_to_the_eye(before, now):
    """Whether no dot differs by more than a twentieth, and the colours of areas not at all."""
    before, now = (np.asarray(picture.convert("RGB"), int) for picture in (before, now))
    exact = (before == now).all(-1)
    return np.abs(before - now).max() <= 13 and exact.mean() > 0.9


def test_a_figure_far_below_is_not_loaded_at_once(browser, html):
    eye = Eye(browser, **DESKTOP)
    eye.page.goto((html / "notebooks/04_l2.html").as_uri())
    eye.page.wait_for_load_state("networkidle")
    above = [url for url in eye.asked if "/_images/" in url]
    eye.page.evaluate(SCROLL)
    assert len(above) < len([url for url in eye.asked if "/_images/" in url])
    eye.context.close()


# --- everybody can read it -------------------------------------------------------------------


def test_axe_finds_nothing(pages):
    assert by_page(pages, lambda p: {view: what for view, what in p.axe.items() if what}) == {}


def test_a_page_has_a_language_and_headings_that_nest(pages):
    assert {page.lang for page in pages.values()} == {"en"}
    assert by_page(pages, lambda page: broken_nesting(page.headings)) == {}


def broken_nesting(levels):
    """Where headings begin with another than the only h1, or skip a level."""
    jumps = [pair for pair in zip([0, *levels], levels) if pair[1] > pair[0] + 1]  # noqa: B905
    return jumps or (levels if levels.count(1) != 1 else [])


def test_what_scrolls_takes_the_keyboard_and_shows_that_it_goes_on(pages):
    assert by_page(pages, lambda page: page.shut) == {}
    assert by_page(pages, lambda page: page.secret) == {}
    assert sum(page.scrolls for page in pages.values()) > 10


def test_no_page_scrolls_sideways(pages):
    assert by_page(pages, lambda page: max(page.tooWide, 0)) == {}


def test_every_internal_link_leads_somewhere(pages, html):
    ids = {name: set(page.ids) for name, page in pages.items()}
    for name, page in pages.items():
        assert dead_links(page.links, html, ids) == [], name


def dead_links(links, html, ids):
    """The links to a file that isn't there, or to a place that its page doesn't have."""
    dead = []
    for link in links:
        address, place = urldefrag(link)
        if address.startswith("file:"):
            file = Path(unquote(urlparse(address).path))
            known = ids.get(str(file.relative_to(html)), set())
            if not file.is_file() or (place and unquote(place) not in known):
                dead.append(link)
    return dead


def test_the_keyboard_goes_through_a_page_in_order(browser, html):
    eye = Eye(browser, **DESKTOP)
    eye.page.goto((html / "notebooks/04_l2.html").as_uri())
    walk = tab_through(eye.page)
    assert walk[0]["says"] == "Skip to main content"
    assert [stop for stop in walk if not stop["seen"]] == []
    article = [stop["place"] for stop in walk if stop["inArticle"]]
    assert article == sorted(article) and len(article) > 40
    eye.context.close()


def tab_through(page):
    """The stops of the Tab key: what they say, where they are, whether one sees the focus."""
    page.add_style_tag(content="* { transition: none !important }")
    page.evaluate("window.order = [...document.querySelectorAll('*')]")
    stops = []
    while len(stops) < 300:
        page.keyboard.press("Tab")
        stop = page.evaluate("""() => {
          const e = document.activeElement, box = e.getBoundingClientRect();
          const { outlineStyle, boxShadow } = getComputedStyle(e);
          return e === document.body ? null : {
            html: e.outerHTML.slice(0, 120), says: e.textContent.trim(), place: order.indexOf(e),
            inArticle: !!e.closest(".bd-article"),
            seen: e.checkVisibility({ visibilityProperty: true, opacityProperty: true })
              && box.width > 0 && box.bottom > 0 && box.top < innerHeight
              && (outlineStyle !== "none" || boxShadow !== "none"),
          };
        }""")
        if stop is None:
            break
        stops.append(stop)
    return stops


KINDS = {
    "code": ".cell_input pre",
    "output": ".cell_output pre",
    "formula": "div.math",
}


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_edge_is_shaded_while_there_is_more(browser, html, colours):
    eye = Eye(browser, **PHONE, color_scheme=colours)
    eye.page.goto((html / "notebooks/04_l2.html").as_uri())
    for kind, where in KINDS.items():
        wide = f"{where}[tabindex='0']"
        eye.page.wait_for_selector(wide)
        region = eye.page.locator(wide).first
        at_the_start = edges(region)
        region.focus()
        for _ in range(40):
            eye.page.keyboard.press("ArrowRight")
        eye.page.wait_for_function(
            "e => e.scrollLeft + e.clientWidth > e.scrollWidth - 2", arg=region.element_handle()
        )
        at_the_end = edges(region)
        assert at_the_start["right"] > at_the_end["right"] + 5, kind
        assert at_the_end["left"] > at_the_start["left"] + 5, kind
    eye.context.close()


def edges(region):
    """How much the ground at the two edges of a region differs from its ground within."""
    region.blur()
    picture = Image.open(io.BytesIO(region.screenshot())).convert("L")
    dots = np.asarray(picture, float)[4:-4]
    ground = np.median(dots)
    return {
        side: np.median(np.abs(dots[:, where] - ground))
        for side, where in [("left", slice(3, 5)), ("right", slice(-5, -3))]
    }


def test_figures_are_native_in_the_dark(browser, html):
    eye = Eye(browser, **DESKTOP, color_scheme="dark")
    eye.page.goto((html / "notebooks/04_l2.html").as_uri())
    figure = eye.page.locator(".cell_output img").first
    figure.scroll_into_view_if_needed()
    figure.evaluate("e => e.decode()")
    corner = Image.open(io.BytesIO(figure.screenshot())).convert("RGB").getpixel((3, 3))
    ground = eye.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert np.abs(np.subtract(corner, colour(ground))).max() <= 4
    eye.context.close()


def test_a_printed_page_is_the_text_alone_and_whole(browser, html):
    eye = Eye(browser, viewport={"width": 700, "height": 1000})  # about A4 without its margins
    eye.page.goto((html / "notebooks/04_l2.html").as_uri())
    eye.page.emulate_media(media="print")
    for part in ("#pst-primary-sidebar", "#pst-secondary-sidebar", ".bd-header-article",
                 ".prev-next-footer", "#pst-back-to-top", "button.copybtn"):
        assert eye.page.locator(part).count(), part
        assert not eye.page.locator(part).first.is_visible(), part
    assert eye.page.locator("h1:visible").count() == 1
    assert eye.facts().scrolls == 0
    assert eye.page.pdf()[:5] == b"%PDF-"
    eye.context.close()


def colour(css):
    return [float(v) for v in css.partition("(")[2].strip(")").split(",")[:3]]


def contrast(one, other):
    """WCAG's contrast ratio of two rgb() colours."""
    return test_plots.contrast(*(np.array(colour(css)) / 255 for css in (one, other)))


# --- these tests can fail --------------------------------------------------------------------

BROKEN = {  # what is put after the title: where it must be noticed
    "another host": ('<img src="http://host.invalid/x.png" alt="x">', "elsewhere"),
    "an error": ("<script>grim()</script>", "problems"),
    "a missing file": ('<script src="gone.js"></script>', "problems"),
    "a figure without a size": ('<img src="../_static/logo.svg" loading="lazy" alt="Logo">',
                                "badFigures"),
    "a figure without words": (
        '<img src="../_static/logo.svg" width="120" height="72" loading="lazy" alt="">',
        "badFigures",
    ),
    "an eager figure": ('<img src="../_static/logo.svg" width="120" height="72" alt="Logo">',
                        "badFigures"),
    "a wide thing": ('<p style="width: 3000px">wide</p>', "tooWide"),
    "a hidden end": ('<div style="overflow: auto"><p style="width: 3000px">wide</p></div>',
                     "secret"),
    "no keyboard": ('<div style="overflow: auto"><p style="width: 3000px">wide</p></div>',
                    "shut"),
    "a late word": (
        # once the page has been painted; the browser mustn't hide it by scrolling along
        '<style>html {overflow-anchor: none}</style><p id="late"></p><script>const next ='
        ' requestAnimationFrame; next(() => next(() => late.style.height = "300px"))</script>',
        "shift",
    ),
    "pale words": ('<p style="color: #bbb">pale</p>', "light"),
    "dark words in the dark": ('<p style="color: #333">dark</p>', "dark"),
    "pale code": ('<pre><span style="color: #bbb">pale</span></pre>', "light"),
    "an unnamed button": ("<button></button>", "light"),
}


@pytest.fixture(scope="module")
def broken(browser, html):
    """A page as seen with a fault put into it on its way to the browser."""
    eye = Eye(browser, **DESKTOP)
    page = (html / "book" / "conventions.html").read_text("utf-8")
    before, title, after = page.rpartition("</h1>")

    def visit(fault, axe):
        address = "**/conventions.html"
        answer = {"body": before + title + fault + after, "content_type": "text/html"}
        eye.page.route(address, lambda route: route.fulfill(**answer))
        seen = look(eye, (html / "book" / "conventions.html").as_uri(), axe)
        eye.page.unroute(address)
        return seen

    yield visit
    eye.context.close()


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_is_noticed(broken, html, name):
    fault, where = BROKEN[name]
    seen = broken(fault, axe=where in ("light", "dark"))
    seen.elsewhere = [url for url in seen.asked if not url.startswith(html.as_uri())]
    found = (vars(seen) | seen.axe)[where]
    assert found > 0.02 if isinstance(found, int | float) else found


def test_a_page_without_a_fault_has_none(broken, html):
    seen = broken("", axe=True)
    assert all(url.startswith(html.as_uri()) for url in seen.asked)
    assert seen.tooWide <= 0 and seen.shift < 0.02 and seen.axe == {"light": [], "dark": []}
    assert seen.problems == seen.badFigures == seen.secret == seen.shut == []


def test_other_colours_are_noticed():
    picture = Image.new("RGB", (100, 100), "white")
    edge, area = picture.copy(), Image.new("RGB", (100, 100), "#fdfdfd")
    edge.putpixel((3, 3), (241, 255, 255))
    assert same_to_the_eye(picture, picture)
    assert not same_to_the_eye(picture, edge) and not same_to_the_eye(picture, area)


def test_a_heavy_page_is_noticed(html):
    css, heavy = (html / "_static" / f for f in ("book.css", "scripts/fontawesome.js"))
    light, full = ([css.as_uri()], [css.as_uri(), heavy.as_uri()])
    pages = {f"notebooks/{i}": SimpleNamespace(asked=a) for i, a in enumerate([light, full])}
    assert [kb > 150 for kb in further(pages).values()] == [False, True]


def test_a_late_paint_is_noticed(browser, server):
    eye = Eye(browser, **DESKTOP)
    slow = {"offline": False, "latency": 400, "downloadThroughput": -1, "uploadThroughput": -1}
    eye.context.new_cdp_session(eye.page).send("Network.emulateNetworkConditions", slow)
    assert first_paint(eye, f"{server}book/references.html") > 600
    eye.context.close()


def test_a_dead_link_is_noticed(html):
    page = (html / "book" / "conventions.html").as_uri()
    ids = {"book/conventions.html": {"here"}}
    assert dead_links([page, f"{page}#here", "https://example.org/x"], html, ids) == []
    for dead in (f"{page}#there", page.replace("conventions", "gone")):
        assert dead_links([dead], html, ids) == [dead]


def test_headings_that_do_not_nest_are_noticed():
    assert not broken_nesting([1, 2, 3, 3, 2, 3])
    assert broken_nesting([2, 3]) and broken_nesting([1, 3]) and broken_nesting([1, 2, 1])


def test_an_edge_without_a_shadow_and_a_hidden_stop_are_noticed(browser, html):
    eye = Eye(browser, **PHONE)
    eye.page.goto((html / "notebooks/04_l2.html").as_uri())
    wide = ".cell_input pre[tabindex='0']"
    eye.page.wait_for_selector(wide)
    eye.page.add_style_tag(content="* { background-image: none !important }")
    eye.page.add_style_tag(content="* { outline: none !important; box-shadow: none !important }")
    region = eye.page.locator(wide).first
    assert edges(region)["right"] < 5
    assert not all(stop["seen"] for stop in tab_through(eye.page)[:20])
    eye.context.close()
