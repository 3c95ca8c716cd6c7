"""The page with the sliders, built by `make book` and used in a real browser."""

from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlencode, urlparse

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, Ridge
from sklearn.preprocessing import PolynomialFeatures
from test_browser import PHONE, contrast

from helpers import close, data, regularizers
from tools import explore
from tools.nbval_numbers import differences

X, Y = explore.two_weights()
SINE = data.sine(20, 0.3, seed=0)
GRID = torch.linspace(-1, 1, 201)
LAMBDAS = [0.001, 0.01, 0.1, 0.3, 0.64, 1, 1.61, 3, 10]


# --- the page in a browser -----------------------------------------------------------------


class Visit:
    """Opens the page, and keeps what went wrong and what was asked for."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address
        self.contexts, self.problems, self.asked = [], [], []

    def __call__(self, hash="", change=None, **options):
        """Open the page with a hash; ``change`` = (file, old, new) opens it doctored."""
        context = self.browser.new_context(**options)
        self.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self.note)
        page.on("request", lambda request: self.asked.append(request.url))
        if change:
            doctor(page, *change)
        page.goto(self.address + hash)
        return page

    def note(self, message):
        if message.type == "error":
            self.problems.append(message.text)

    def elsewhere(self):
        """The addresses asked for that are no files."""
        return [url for url in self.asked if not url.startswith(("file:", "data:"))]


def doctor(page, file, old, new):
    """Let the page find another text in one of its files."""

    def answer(route):
        text = Path(unquote(urlparse(route.request.url).path)).read_text("utf-8")
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
        kind = "text/html" if file.endswith("html") else "text/javascript"
        route.fulfill(body=text.replace(old, new), content_type=f"{kind}; charset=utf-8")

    page.route(f"**/{file}*", answer)


@pytest.fixture
def visits(browser, html):
    """A way to open the page that closes it afterwards."""
    visit = Visit(browser, (html / "book" / "explore.html").as_uri())
    yield visit
    for context in visit.contexts:
        context.close()


@pytest.fixture
def visit(visits):
    """The same; and afterwards there was no error, and nothing was asked of another host."""
    yield visits
    assert visits.problems == [] and visits.elsewhere() == [] and visits.asked


def settle(page):
    """Wait until the page has said what changed and put it into the address."""
    page.wait_for_timeout(300)


def go(page, hash="", **state):
    """Change the address's hash by hand, as a reader with a link does."""
    page.evaluate(
        """hash => new Promise(done => {
          addEventListener("hashchange", () => setTimeout(done), { once: true });
          location.hash = hash;
        })""",
        hash or urlencode(state),
    )


def numbers(page, selector):
    """The exact numbers behind those shown, in order."""
    found = page.locator(f"{selector} data").evaluate_all("all => all.map(d => Number(d.value))")
    assert found, selector
    return np.array(found)


def solutions(page):
    """{solution: [w₁, w₂, ‖w‖₁, ‖w‖₂, ½ MSE]}."""
    rows = numbers(page, "#explore-two tbody").reshape(3, 5)
    return dict(zip(["least squares", "ridge", "lasso"], rows, strict=True))


def state(page):
    """The state in the address as numbers."""
    return {k: float(v[0]) for k, v in parse_qs(page.evaluate("location.hash.slice(1)")).items()}


def says(page, panel):
    return page.locator(f"#{panel} .explore-says").inner_text()


def row(w, y):
    """What the page's table must say of a solution."""
    w = torch.as_tensor(w)
    return [*w, w.abs().sum(), w.norm(), (y - X @ w).square().mean() / 2]


# --- its numbers are the book's --------------------------------------------------------------


def test_the_written_file_is_what_the_helpers_say():
    stored = explore.PATH.read_text("utf-8")
    assert differences(stored, explore.page()) == [], "`make notebooks` writes it anew"
    assert differences(stored.replace("0.668", "0.670"), explore.page())
    assert differences(stored, explore.page().replace("1.115941249472", "1.115941249475"))


@pytest.mark.parametrize("moved", [None, (1.6, -0.3), (-0.5, 1.2), (0.8, -0.8), (0, 0)])
def test_two_weights_equal_the_helpers_and_scikit_learn(visit, moved):
    page = visit()
    w = torch.linalg.lstsq(X, Y).solution if moved is None else torch.tensor(moved, dtype=Y.dtype)
    y = Y + X @ (w - torch.linalg.lstsq(X, Y).solution)
    for lam in LAMBDAS:
        go(page, **{"lambda": lam}, **({} if moved is None else {"w1": moved[0], "w2": moved[1]}))
        ours = solutions(page)
        ridge = regularizers.ridge(X, y, lam)
        lasso = Lasso(alpha=lam, fit_intercept=False, tol=1e-14, max_iter=10**5).fit(X, y).coef_
        for name, theirs in [("least squares", w), ("ridge", ridge), ("lasso", lasso)]:
            assert close(ours[name], row(theirs, y), 1e-6), name
        assert close(ours["lasso"][:2], regularizers.fista(X, y, [lam], tol=1e-14)[0], 1e-6)
        assert ((ours["lasso"][:2] == 0) == (lasso == 0)).all()


@pytest.mark.parametrize("degree", [1, 3, 9, 15])
def test_the_polynomial_equals_the_helpers_and_scikit_learn(visit, degree):
    page = visit()
    for lam in [1e-6, 1e-4, 0.01, 0.3, 10]:
        go(page, fit_lambda=lam, degree=degree)
        training, truth, norm = numbers(page, "#explore-fit .explore-says")
        assert close([training, truth], explore.polynomial_errors(lam, degree), 1e-6)
        A = explore.legendre(SINE.X, degree)
        model = Ridge(alpha=20 * lam, solver="svd").fit(A, SINE.y)
        against = model.predict(explore.legendre(GRID, degree)) - np.sin(np.pi * GRID.numpy())
        theirs = [((model.predict(A) - SINE.y.numpy()) ** 2).mean(), (against**2).mean()]
        assert close([training, truth], theirs, 1e-6)
        assert close(norm, np.linalg.norm(model.coef_), 1e-6)


def test_the_curve_drawn_is_the_fit(visit):
    """The end of the drawn line lies where scikit-learn's polynomial in plain powers has it."""
    page = visit("#fit_lambda=0.000001&degree=3")
    # With hardly any penalty, ridge in Legendre's basis is least squares in any basis.
    powers = PolynomialFeatures(3, include_bias=False)
    model = Ridge(alpha=1e-9).fit(powers.fit_transform(SINE.X[:, None].numpy()), SINE.y)
    drawn = page.locator("#explore-curve .fit").get_attribute("d")
    ends = [[float(v) for v in point.split()] for point in drawn.strip("M").split("L")]
    assert len(ends) == 201
    height = {v: y for v, y in page.locator("#explore-curve text.side").evaluate_all(
        "all => all.map(t => [t.textContent, Number(t.getAttribute('y')) - 4])")}
    unit = height["0"] - height["1"]
    fit = model.predict(powers.transform([[-1], [0.5], [1]]))
    shown = [(height["0"] - ends[i][1]) / unit for i in (0, 150, 200)]
    assert shown == pytest.approx(fit, abs=1e-3)


def test_exact_zeros_are_said_and_no_others(visit):
    page = visit("#lambda=1")
    assert "Lasso: w₁ = 0.585, w₂ is exactly zero." in says(page, "explore-two")
    assert page.locator("#explore-two tbody tr").nth(2).inner_text().split() == [
        "lasso", "0.585", "0", "0.585", "0.585", f"{solutions(page)['lasso'][4]:.3f}"
    ]
    go(page, **{"lambda": 10}, w1=0, w2=0.001)
    assert "Ridge: w₁ is exactly zero, w₂ is exactly zero." in says(page, "explore-two")
    go(page, **{"lambda": 10}, w1=0.01, w2=-0.01)
    assert "exactly" not in says(page, "explore-two").split("Lasso")[0]
    assert "w₁ is exactly zero, w₂ is exactly zero" in says(page, "explore-two").split("Lasso")[1]


def test_what_the_answers_say():
    """The prose's claims about these data, without a browser."""
    lams = np.logspace(1, -3, 200)
    ridge, lasso = regularizers.ridge(X, Y, lams.tolist()), regularizers.fista(X, Y, lams, 1e-14)
    assert (ridge > 0).all() and (lasso[0] == 0).all() and (lasso[-1] > 0).all()
    assert not ((lasso[:, 0] == 0) & (lasso[:, 1] != 0)).any()  # w₂ is dropped, never w₁ alone
    y = Y + X @ (torch.tensor([1.5, -0.15]) - torch.linalg.lstsq(X, Y).solution)
    ridge, lasso = regularizers.ridge(X, y, lams.tolist()), regularizers.fista(X, y, lams, 1e-14)
    assert ridge[-1, 1] < 0 < ridge[0, 1] and (lasso[:, 1] <= 0).all()

    grid = np.logspace(-6, 1, 71)
    error = {d: np.array([explore.polynomial_errors(lam, d) for lam in grid]) for d in (3, 9, 15)}
    (train, at), (smallest_train, smallest) = explore.polynomial_errors(0.01, 9), error[9][0]
    assert smallest / at > 10 and train / smallest_train < 2
    best = {d: grid[e[:, 1].argmin()] for d, e in error.items()}
    assert 0.5 < best[9] / best[15] < 2 and best[3] < best[9] / 10
    assert error[3][:, 1].min() < error[9][:, 1].min() / 2


# --- hands -----------------------------------------------------------------------------------


def test_the_keyboard_moves_everything(visit):
    page = visit()
    page.keyboard.press("Tab")
    focus = "document.activeElement"
    for _ in range(200):
        if page.evaluate(f"{focus}.id") == "explore-lambda":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert state(page) == {"lambda": 0.309, "fit_lambda": 0.01, "degree": 9}
    assert page.evaluate(f"{focus}.getAttribute('aria-valuetext')") == "λ = 0.309"
    page.keyboard.press("End")
    settle(page)
    assert "w₁ is exactly zero, w₂ is exactly zero" in says(page, "explore-two")
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focus}.textContent") == "Reset"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focus}.getAttribute('aria-label')") == "Least-squares solution"
    before = solutions(page)["least squares"]
    for key in ("ArrowLeft", "ArrowUp", "Shift+ArrowUp"):
        page.keyboard.press(key)
    settle(page)
    after = solutions(page)["least squares"]
    assert after[:2] - before[:2] == pytest.approx([-0.05, 0.55], abs=0.011)
    assert state(page)["w1"] == after[0] and state(page)["w2"] == after[1]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    settle(page)
    assert state(page) == {"lambda": 0.3, "fit_lambda": 0.01, "degree": 9}
    page.locator("#explore-degree").focus()
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert state(page)["degree"] == 8
    assert says(page, "explore-fit").startswith("Degree 8, λ = 0.01:")


@contextmanager
def pressed(page, touch):
    """A function that moves a pressed finger or mouse through a list of points."""
    session = page.context.new_cdp_session(page)

    def finger(kind, *point):
        touches = [{"x": point[0], "y": point[1]}] if point else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def drag(start, end):
        points = np.linspace(start, end, 6)
        if touch:
            finger("touchStart", *points[0])
            for point in points[1:]:
                finger("touchMove", *point)
            finger("touchEnd")
        else:
            page.mouse.move(*points[0])
            page.mouse.down()
            for point in points[1:]:
                page.mouse.move(*point)
            page.mouse.up()
        settle(page)

    yield drag
    session.detach()


def middle(locator):
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    return np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])


@pytest.mark.parametrize("options", [{}, PHONE], ids=["mouse", "touch"])
def test_dragging_moves_everything(visit, options):
    page = visit(**options)
    with pressed(page, touch=bool(options)) as drag:
        page.locator("#explore-plane").scroll_into_view_if_needed()
        start = middle(page.locator("#explore-plane .ring"))
        unit = page.locator("#explore-plane").bounding_box()["width"] * 302 / 360 / 4.6
        before, scrolled = solutions(page)["least squares"], page.evaluate("scrollY")
        drag(start, start + [-unit, -unit / 2])
        change = solutions(page)["least squares"][:2] - before[:2]
        assert change == pytest.approx([-1, 0.5], abs=0.03)
        assert page.evaluate("scrollY") == scrolled
        assert state(page)["w1"] == pytest.approx(before[0] - 1, abs=0.03)

        slider = page.locator("#explore-lambda")
        drag(middle(slider), middle(slider) + [slider.bounding_box()["width"], 0])
        assert state(page)["lambda"] == 10

        for picture, name, there in [("paths", "lambda", 0.001), ("errors", "fit_lambda", 1e-6)]:
            at = middle(page.locator(f"#explore-{picture}"))
            drag(at, at - [page.locator(f"#explore-{picture}").bounding_box()["width"] / 2, 0])
            assert state(page)[name] == there


# --- the address -----------------------------------------------------------------------------


def test_a_copied_address_brings_everything_back(visit):
    page = visit("#lambda=0.9&fit_lambda=0.0001&degree=12&w1=1.6&w2=-0.3")
    page.locator("#explore-degree").press("ArrowRight")
    settle(page)
    copied = page.evaluate("location.hash")
    assert copied == "#lambda=0.9&fit_lambda=0.0001&degree=13&w1=1.6&w2=-0.3"
    other = visit(copied)
    assert says(other, "explore-two") == says(page, "explore-two")
    assert says(other, "explore-fit") == says(page, "explore-fit")
    assert other.evaluate("location.hash") == copied
    assert (solutions(other)["lasso"] == solutions(page)["lasso"]).all()
    assert page.locator("#explore-degree + output").inner_text() == "13"


ANY = {  # hash: how the two sentences begin
    "": ("λ = 0.3.", "Degree 9, λ = 0.01:"),
    "#lambda=&degree=x&fit_lambda=NaN&w1=Infinity": ("λ = 0.3.", "Degree 9, λ = 0.01:"),
    "#lambda=-1&fit_lambda=0&degree=99": ("λ = 0.001.", "Degree 15, λ = 0.000001:"),
    "#lambda=1e9&fit_lambda=1e9&degree=-2.5": ("λ = 10.", "Degree 1, λ = 10:"),
    "#degree=2.6&other=3": ("λ = 0.3.", "Degree 3, λ = 0.01:"),
    "#lambda=<b>&w1=%zz&=": ("λ = 0.3.", "Degree 9, λ = 0.01:"),
}


def test_any_address_gives_a_state(visit):
    page = visit()
    for hash, (two, fit) in ANY.items():
        if hash:
            go(page, hash)
        assert says(page, "explore-two").startswith(two), hash
        assert says(page, "explore-fit").startswith(fit), hash
        assert np.isfinite(numbers(page, "#explore-two")).all(), hash


def test_a_place_on_the_page_is_no_state(visit):
    page = visit("#lambda=2")
    page.get_by_role("link", name="at the end").click()
    settle(page)
    assert page.evaluate("location.hash") == "#explore-numbers"
    assert says(page, "explore-two").startswith("λ = 2.")


# --- other eyes ------------------------------------------------------------------------------


def test_everything_has_a_name_and_words(visit):
    page = visit()
    assert not page.get_by_text("The pictures are drawn by JavaScript").is_visible()
    for role, name in [("slider", "λ"), ("slider", "degree"), ("slider", "Least-squares solution"),
                       ("button", "Reset"), ("region", "Two weights"), ("region", "A polynomial")]:
        assert page.get_by_role(role, name=name).count() >= 1, name
    names = page.locator(".explore figure > svg").evaluate_all(
        "all => all.map(s => s.getAttribute('aria-label'))"
    )
    assert len(names) == 4 and all(len(name.split()) > 6 for name in names)
    assert page.locator("p[role=status]").count() == 2
    assert page.locator("#explore-weights-table tbody tr").count() == len(explore.LAMBDAS)


def test_without_javascript_the_words_and_numbers_are_there(visit):
    page = visit(java_script_enabled=False)
    assert page.get_by_text("The pictures are drawn by JavaScript").is_visible()
    assert page.locator("#explore-weights-table").is_visible()
    assert page.locator("#explore-errors-table").is_visible()
    assert not page.locator(".explore-controls").first.is_visible()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_lines_and_marks_stand_out(visit, colours):
    """Contrast of at least 3 to 1 with the page, as accessible graphics need."""
    page = visit(color_scheme=colours)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for kind in ("ridge.line", "lasso.line", "ls.point"):
        line = page.locator(f".explore figure > svg .{kind}").first
        assert contrast(line.evaluate("e => getComputedStyle(e).stroke"), background) > 3, kind


def test_no_screen_scrolls_sideways(visit):
    page = visit()
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints_what_is_seen(visit):
    page = visit("#lambda=1")
    page.emulate_media(media="print")
    assert page.locator("#explore-plane").is_visible()
    assert not page.locator("#explore-lambda").is_visible()
    assert page.locator("#explore-lambda + output").inner_text() == "1"
    assert page.pdf()[:5] == b"%PDF-"


# --- these tests can fail --------------------------------------------------------------------

WRONG = {
    "ridge": ("g + lam : g", "g + 2 * lam : g"),
    "lasso": ("c[0] - lam * s) / G", "c[0] - 2 * lam * s) / G"),
    "least squares": ("(G, gram(COLUMNS, [DATA.y]).flat())", "(G, [1, 1])"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_formula_changes_the_page(visits, name):
    right, wrong = (solutions(visits("#lambda=1", change)) for change in [
        None, ("explore.js", *WRONG[name])
    ])
    assert not close(right[name], wrong[name], 1e-3)


def test_an_error_and_another_host_are_found(visits):
    old = '<p class="explore-without">'
    visits(change=("explore.html", old, f'<img src="http://host.invalid/x.png" alt="">{old}'))
    assert visits.elsewhere() == ["http://host.invalid/x.png"]
    visits.problems.clear()
    visits(change=("explore.js", "const G = gram(", "const G = grim("))
    assert visits.problems == ["grim is not defined"]
