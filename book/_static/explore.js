/* The page "Move λ and watch the weights": closed forms, four pictures, the state in the URL. */
(() => {
  "use strict";

  // --- closed forms ------------------------------------------------------------------------
  // The objective is ½ · mean squared error + penalty, as in the book. G = XᵀX/n, c = Xᵀy/n.

  const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  const mean = (v) => v.reduce((sum, x) => sum + x, 0) / v.length;
  const apply = (M, v) => M.map((row) => dot(row, v));

  /** AᵀB/n for matrices given by their columns. */
  const gram = (A, B) => A.map((a) => B.map((b) => dot(a, b) / a.length));

  /** The v with Mv = b, M symmetric and positive definite, by M = LLᵀ (Cholesky). */
  function solve(M, b) {
    const L = [];
    for (const [i, row] of M.entries()) {
      L.push([]);
      for (let j = 0; j < i; j++) L[i].push((row[j] - dot(L[i], L[j])) / L[j][j]);
      L[i].push(Math.sqrt(row[i] - dot(L[i], L[i])));
    }
    const v = [];
    L.forEach((row, i) => v.push((b[i] - dot(v, row)) / row[i]));
    for (let i = v.length - 1; i >= 0; i--) {
      for (let k = i + 1; k < v.length; k++) v[i] -= L[k][i] * v[k];
      v[i] /= L[i][i];
    }
    return v;
  }

  /** Ridge: (G + λI)w = c. */
  function ridge(G, c, lam) {
    return solve(G.map((row, i) => row.map((g, j) => (i === j ? g + lam : g))), c);
  }

  /** Lasso for two weights: the best of the stationary points of all sign patterns. */
  function lasso(G, c, lam) {
    const value = (w) => dot(w, apply(G, w)) / 2 - dot(c, w) + lam * norm1(w);
    const points = [[0, 0]];
    for (const s of [1, -1]) {
      points.push([(c[0] - lam * s) / G[0][0], 0], [0, (c[1] - lam * s) / G[1][1]]);
      for (const t of [1, -1]) points.push(solve(G, [c[0] - lam * s, c[1] - lam * t]));
    }
    // An exact zero is met first, and kept where no other point has a smaller value. So a weight
    // below 1e-8, whose square is lost in rounding, counts as zero.
    points.sort((a, b) => a.filter(Boolean).length - b.filter(Boolean).length);
    return points.reduce((best, w) => (value(w) < value(best) ? w : best));
  }

  const norm1 = (w) => w.reduce((sum, v) => sum + Math.abs(v), 0);
  const norm2 = (w) => Math.hypot(...w);

  /** The columns P_1(x), …, P_degree(x) of Legendre's polynomials, each from the two before. */
  function legendre(x, degree) {
    const P = [x.map(() => 1), x];
    for (let k = 1; k < degree; k++) {
      P.push(x.map((v, i) => ((2 * k + 1) * v * P[k][i] - k * P[k - 1][i]) / (k + 1)));
    }
    return P.slice(1);
  }

  /** Ridge on polynomials, whose constant is not penalised: centred columns, centred y. */
  function fitted(x, y, degree, lam) {
    const columns = legendre(x, degree), means = columns.map(mean), middle = mean(y);
    const A = columns.map((a, j) => a.map((v) => v - means[j]));
    const w = ridge(gram(A, A), gram(A, [y.map((v) => v - middle)]).flat(), lam);
    const at = legendre(GRID, degree), constant = middle - dot(means, w);
    return {
      w,
      curve: GRID.map((_, i) => constant + at.reduce((sum, a, j) => sum + a[i] * w[j], 0)),
      train: mean(y.map((v, i) => (A.reduce((sum, a, j) => sum + a[i] * w[j], middle) - v) ** 2)),
    };
  }

  /** Mean squared distance of a curve on the grid to sin πx. */
  const againstTruth = (curve) => mean(curve.map((v, i) => (v - TRUTH[i]) ** 2));

  const GRID = Array.from({ length: 201 }, (_, i) => i / 100 - 1);
  const TRUTH = GRID.map((x) => Math.sin(Math.PI * x));

  // --- the page's data and state -------------------------------------------------------------

  const get = (id) => document.getElementById(id);
  const DATA = JSON.parse(get("explore-data").textContent);
  const COLUMNS = [0, 1].map((j) => DATA.X.map((row) => row[j]));
  const G = gram(COLUMNS, COLUMNS);
  const LEAST_SQUARES = solve(G, gram(COLUMNS, [DATA.y]).flat());
  // Moving the least-squares solution changes the fitted part of y; what is left stays.
  const LEFT = mean(DATA.y.map((v, i) => (v - dot(DATA.X[i], LEAST_SQUARES)) ** 2)) / 2;
  const REACH = 2; // how far the least-squares solution can be moved

  const INPUTS = {
    lambda: get("explore-lambda"), fit_lambda: get("explore-fit-lambda"), degree: get("explore-degree"),
  };
  const isLog = (name) => name !== "degree";
  const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
  // What is shown is what is computed with: three digits of λ, two decimals of a moved weight.
  const toDigits = (lam) => Number(lam.toPrecision(3));
  const toPlane = (v) => Number(clamp(v, -REACH, REACH).toFixed(2)) + 0;
  const fromSlider = (name, v) => (isLog(name) ? toDigits(10 ** v) : Math.round(v));
  const bounds = (name) => ["min", "max"].map((end) => fromSlider(name, Number(INPUTS[name][end])));
  const initial = (name) => Number(INPUTS[name].dataset.first);
  const defaults = () => ({
    ...Object.fromEntries(Object.keys(INPUTS).map((name) => [name, initial(name)])),
    w1: LEAST_SQUARES[0], w2: LEAST_SQUARES[1],
  });

  let state = defaults();

  /** The state in an address's hash; what is absent or no number keeps its first value. */
  function parse(hash) {
    const given = new URLSearchParams(hash.slice(1)), read = defaults();
    for (const name of Object.keys(read)) {
      const text = given.get(name) ?? "", value = Number(text);
      if (!text.trim() || !Number.isFinite(value)) continue;
      if (name in INPUTS) {
        const inside = clamp(value, ...bounds(name));
        read[name] = isLog(name) ? toDigits(inside) : Math.round(inside);
      } else {
        read[name] = toPlane(value);
      }
    }
    return read;
  }

  /** The hash of a state: everything but a least-squares solution that was not moved. */
  function format({ w1, w2, ...rest }) {
    const moved = w1 !== LEAST_SQUARES[0] || w2 !== LEAST_SQUARES[1];
    const both = { w1: toPlane(w1), w2: toPlane(w2) };
    return "#" + new URLSearchParams(moved ? { ...rest, ...both } : rest);
  }

  // --- drawing ---------------------------------------------------------------------------------

  const path = (kind, points, close = "") => {
    const d = points.map((p) => p.map((v) => v.toFixed(2)).join(" ")).join("L");
    return `<path class="${kind}" d="M${d}${close}"/>`;
  };
  const disc = (kind, [x, y], r) => `<circle class="${kind}" cx="${x}" cy="${y}" r="${r}"/>`;
  const label = (kind, [x, y], text) => `<text class="${kind}" x="${x}" y="${y}">${text}</text>`;
  const steps = (low, high, n) => Array.from({ length: n + 1 }, (_, i) => low + ((high - low) * i) / n);
  const plain = (v) => String(v).replace("-", "−");
  /** A power of ten as a short text: 0.01, and 10⁻⁵ where that is shorter. */
  const power = (e) => (e < -3 ? `10⁻${"⁰¹²³⁴⁵⁶⁷⁸⁹"[-e]}` : String(Number((10 ** e).toPrecision(1))));
  const logRange = (name) => [Number(INPUTS[name].min), Number(INPUTS[name].max)];
  const lambdas = (name, n) => steps(...logRange(name), n).map((e) => 10 ** e);

  /** A picture with two axes: `frame` is drawn once, `draw` replaces what depends on the state. */
  function picture(id, { x, y, xlabel, ylabel, logx = false, logy = false }) {
    const svg = get(id), { width, height } = svg.viewBox.baseVal;
    const box = { left: 46, right: width - 12, top: 24, bottom: height - 40 };
    const scale = (v, [low, high], from, to, log) =>
      from + (((log ? Math.log10(v) : v) - low) / (high - low)) * (to - from);
    const at = (vx, vy) =>
      [scale(vx, x, box.left, box.right, logx), scale(vy, y, box.bottom, box.top, logy)];
    const ticks = ([low, high]) => {
      const first = Math.ceil(low), last = Math.floor(high);
      return steps(first, last, last - first);
    };
    const name = (v, log) => (log ? power(v) : plain(v));
    let frame = `<clipPath id="${id}-clip"><rect x="${box.left}" y="${box.top}" width="${box.right - box.left}"
      height="${box.bottom - box.top}"/></clipPath>`;
    for (const v of ticks(x)) {
      const [px] = at(logx ? 10 ** v : v, logy ? 1 : 0);
      frame += path("grid", [[px, box.top], [px, box.bottom]]);
      frame += label("tick", [px, box.bottom + 15], name(v, logx));
    }
    for (const v of ticks(y)) {
      const [, py] = at(logx ? 1 : 0, logy ? 10 ** v : v);
      frame += path("grid", [[box.left, py], [box.right, py]]);
      frame += label("tick side", [box.left - 5, py + 4], name(v, logy));
    }
    frame += label("name", [(box.left + box.right) / 2, height - 6], xlabel);
    frame += label("name side", [box.left - 20, 14], ylabel);
    svg.insertAdjacentHTML("beforeend", `<g aria-hidden="true">${frame}</g>
      <g aria-hidden="true" clip-path="url(#${id}-clip)"></g>`);
    const layer = svg.lastElementChild;
    /** The values of x and y under a pointer. */
    const under = (event) => {
      const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const back = (v, [low, high], from, to) => low + ((v - from) / (to - from)) * (high - low);
      return [back(p.x, x, box.left, box.right), back(p.y, y, box.bottom, box.top)];
    };
    const map = (points) => points.map((p) => at(...p));
    const vertical = (v) => path("now", [[at(v, 1)[0], box.top], [at(v, 1)[0], box.bottom]]);
    return { svg, box, at, map, under, vertical, draw: (html) => { layer.innerHTML = html; } };
  }

  const SIDE = [-2.3, 2.3];
  const plane = picture("explore-plane", { x: SIDE, y: SIDE, xlabel: "w₁", ylabel: "w₂" });
  const paths = picture("explore-paths", {
    x: logRange("lambda"), y: SIDE, xlabel: "λ", ylabel: "w", logx: true,
  });
  const curve = picture("explore-curve", { x: [-1, 1], y: [-2.2, 2.2], xlabel: "x", ylabel: "y" });
  const errors = picture("explore-errors", {
    x: logRange("fit_lambda"), y: [-2.2, 1], xlabel: "λ", ylabel: "error", logx: true, logy: true,
  });

  /** The ellipse on which the loss exceeds its minimum by `rise`, around `centre`. */
  function ellipse(centre, rise) {
    const l = Math.sqrt(G[0][0]), m = G[1][0] / l, k = Math.sqrt(G[1][1] - m * m), r = Math.sqrt(2 * rise);
    return steps(0, 2 * Math.PI, 120).map((a) => {
      const v = (r * Math.sin(a)) / k;
      return [centre[0] + (r * Math.cos(a) - m * v) / l, centre[1] + v];
    });
  }

  const circle = (r) => steps(0, 2 * Math.PI, 120).map((a) => [r * Math.cos(a), r * Math.sin(a)]);
  const diamond = (r) => [[r, 0], [0, r], [-r, 0], [0, -r]];
  const MARKS = {
    ridge: (at) => disc("ridge point", at, 5.5),
    lasso: ([x, y]) => path("lasso point", [[x, y - 7], [x + 7, y], [x, y + 7], [x - 7, y]], "Z"),
  };

  // --- what the pictures, tables and sentences say ---------------------------------------------

  const shown = (v) => (v === 0 ? "0" : plain(v.toFixed(3)));
  const cell = (v) => `<td><data value="${v}">${shown(v)}</data></td>`;
  const row = (kind, values) => `<tr><th scope="row">${kind}</th>${values.map(cell).join("")}</tr>`;

  function twoWeights() {
    const ls = [state.w1, state.w2], c = apply(G, ls);
    const rise = (w) => { const d = [w[0] - ls[0], w[1] - ls[1]]; return dot(d, apply(G, d)) / 2; };
    const grid = lambdas("lambda", 200);
    const along = Object.entries({ ridge, lasso }).map(([kind, solver]) =>
      [kind, solver(G, c, state.lambda), grid.map((lam) => solver(G, c, lam))]);
    const now = along.map(([kind, w]) => [kind, w]);

    plane.draw([0.1, 0.4, 0.9, 1.6].map((v) => path("contour", plane.map(ellipse(ls, v)))).join("")
      + path("ridge ball", plane.map(circle(norm2(now[0][1]))), "Z")
      + path("lasso ball", plane.map(diamond(norm1(now[1][1]))), "Z")
      + along.map(([kind, w, all]) => path(`${kind} thin`, plane.map(ellipse(ls, rise(w))))
        + path(`${kind} line`, plane.map([ls, ...all, [0, 0]]))).join("")
      + now.map(([kind, w]) => MARKS[kind](plane.at(...w))).join(""));
    moveHandle(ls);

    paths.draw(paths.vertical(state.lambda)
      + along.map(([kind, w, all]) => [0, 1].map((j) =>
        path(`${kind} line`, paths.map(grid.map((lam, i) => [lam, all[i][j]])))
        + MARKS[kind](paths.at(state.lambda, w[j]))).join("")).join("")
      + [0, 1].map((j) => label("series", [paths.box.left + 6, labelHeight(ls, j)], ["w₁", "w₂"][j])).join(""));

    const rows = [["least squares", ls], ...now];
    get("explore-two").querySelector("tbody").innerHTML = rows
      .map(([kind, w]) => row(kind, [...w, norm1(w), norm2(w), LEFT + rise(w)])).join("");
    return `λ = ${state.lambda}. Ridge: ${described(now[0][1])}. Lasso: ${described(now[1][1])}.`;
  }

  /** Height of a weight's label: above its line, or below it where the other's is higher. */
  function labelHeight(w, j) {
    const above = w[j] >= w[1 - j] && (j === 0 || w[0] !== w[1]);
    return paths.at(1, w[j])[1] + (above ? -8 : 18);
  }

  /** A weight vector in words: "w₁ = 1.2 and w₂ is exactly zero". */
  const described = (w) => w.map((v, j) =>
    v === 0 ? `${["w₁", "w₂"][j]} is exactly zero` : `${["w₁", "w₂"][j]} = ${shown(v)}`).join(", ");

  let profile = { degree: 0 }; // both errors over λ, computed anew when the degree changes

  function polynomial() {
    const { x, y } = DATA.sine, { fit_lambda: lam, degree } = state;
    if (profile.degree !== degree) {
      const grid = lambdas("fit_lambda", 140), fits = grid.map((l) => fitted(x, y, degree, l));
      profile = { degree, train: fits.map((f, i) => [grid[i], f.train]),
        truth: fits.map((f, i) => [grid[i], againstTruth(f.curve)]) };
    }
    const fit = fitted(x, y, degree, lam), distance = againstTruth(fit.curve);
    const dots = x.map((v, i) => curve.at(v, y[i]));
    curve.draw(path("truth line", curve.map(GRID.map((v, i) => [v, TRUTH[i]])))
      + dots.map((at) => disc("sample", at, 3.5)).join("")
      + path("fit line", curve.map(GRID.map((v, i) => [v, fit.curve[i]]))));
    const now = { training: errors.at(lam, fit.train), against: errors.at(lam, distance) };
    errors.draw(errors.vertical(lam) + path("training line", errors.map(profile.train))
      + path("against line", errors.map(profile.truth))
      + Object.entries(now).map(([kind, at]) => disc(`${kind} point`, at, 5)).join(""));
    const number = (v) => `<data value="${v}">${shown(v)}</data>`;
    return `Degree ${degree}, λ = ${lam}: training error ${number(fit.train)}, error against the truth `
      + `${number(distance)}, ‖w‖₂ ${number(norm2(fit.w))}.`;
  }

  // --- controls ----------------------------------------------------------------------------------

  plane.svg.insertAdjacentHTML("beforeend", `<g class="handle" tabindex="0" role="slider"
    aria-label="Least-squares solution" aria-roledescription="point moved by the arrow keys"
    aria-valuemin="${-REACH}" aria-valuemax="${REACH}"><circle r="22" class="grip"/><circle r="11"
    class="ring"/><path class="ls point" d="M-5 -5L5 5M-5 5L5 -5"/></g>`);
  const handle = plane.svg.lastElementChild;

  function moveHandle(w) {
    handle.setAttribute("transform", `translate(${plane.at(...w).join(" ")})`);
    handle.setAttribute("aria-valuenow", w[0].toFixed(2));
    handle.setAttribute("aria-valuetext", `w₁ = ${shown(w[0])}, w₂ = ${shown(w[1])}`);
  }

  const PANELS = [
    { root: get("explore-two"), draw: twoWeights, holds: ["lambda", "w1", "w2"] },
    { root: get("explore-fit"), draw: polynomial, holds: ["fit_lambda", "degree"] },
  ];
  let later;

  /** Draw everything; a moment after the last change, say it and put it into the address. */
  function show({ quiet = false } = {}) {
    for (const [name, input] of Object.entries(INPUTS)) {
      input.value = isLog(name) ? Math.log10(state[name]) : state[name];
      input.nextElementSibling.value = state[name];
      const text = isLog(name) ? `λ = ${state[name]}` : `degree ${state[name]}`;
      input.setAttribute("aria-valuetext", text);
    }
    const said = PANELS.map(({ root, draw }) => [root.querySelector(".explore-says"), draw()]);
    const say = () => said.forEach(([p, html]) => { if (p.innerHTML !== html) p.innerHTML = html; });
    clearTimeout(later);
    if (quiet) return say();
    later = setTimeout(() => {
      say();
      history.replaceState(null, "", format(state));
    }, 150);
  }

  function change(part) {
    state = { ...state, ...part };
    show();
  }

  /** Call `move` with the values under the pointer while it is pressed on an element. */
  function onDrag(element, view, move) {
    const follow = (event) => move(...view.under(event));
    element.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      element.setPointerCapture(event.pointerId);
      follow(event);
    });
    element.addEventListener("pointermove", (event) => {
      if (element.hasPointerCapture(event.pointerId)) follow(event);
    });
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const put = (w1, w2) => change({ w1: toPlane(w1), w2: toPlane(w2) });

  for (const [name, input] of Object.entries(INPUTS)) {
    input.addEventListener("input", () => change({ [name]: fromSlider(name, input.valueAsNumber) }));
  }
  for (const [name, view] of [["lambda", paths], ["fit_lambda", errors]]) {
    onDrag(view.svg, view, (x) => change({ [name]: fromSlider(name, clamp(x, ...logRange(name))) }));
  }
  onDrag(handle, plane, put);
  // Otherwise a finger on it scrolls the page; `touch-action` is overlooked inside an SVG.
  handle.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  handle.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key], step = event.shiftKey ? 0.5 : 0.05;
    if (!arrow || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    put(state.w1 + step * arrow[0], state.w2 + step * arrow[1]);
  });
  for (const { root, holds } of PANELS) {
    const first = defaults();
    const reset = () => change(Object.fromEntries(holds.map((name) => [name, first[name]])));
    root.querySelector(".explore-reset").addEventListener("click", reset);
  }

  /** Take the state from the address, unless it names a place on the page. */
  function take() {
    if (location.hash && !location.hash.includes("=")) return;
    state = parse(location.hash);
    show({ quiet: true });
  }
  window.addEventListener("hashchange", take);
  show({ quiet: true });
  take();
})();
