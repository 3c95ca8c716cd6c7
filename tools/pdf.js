// Runs in Chromium. `read` is called on each finished page, `bind` on an empty one.

// The text of a page, with addresses that hold elsewhere.
async function read() {
  const article = document.querySelector("article.bd-article");
  for (const image of article.querySelectorAll("img")) {
    image.loading = "eager";
    image.src = image.src;
    await image.decode().catch(() => { throw new Error(`no picture at ${image.src}`); });
  }
  for (const link of article.querySelectorAll("a[href], link[href]")) link.href = link.href;
  article.querySelectorAll(".headerlink, button, script").forEach(e => e.remove());
  return article.innerHTML;
}

// One document of `pages`, [{ address, part, html }], under a title page and a contents.
async function bind({ title, subtitle, logo, pages }) {
  const make = (tag, name, ...inside) => {
    const element = document.createElement(tag);
    element.className = name;
    element.append(...inside);
    return element;
  };
  // A reference to a page by its number, which a second printing knows.
  const toPage = (id, ...words) => {
    const link = make("a", "to-page", ...words, make("span", "page-number"));
    link.href = `#${id}`;
    return link;
  };
  const words = heading => {
    const copy = heading.cloneNode(true);
    copy.removeAttribute("id");
    return make("span", "", ...copy.childNodes);
  };

  const picture = make("img", "");
  picture.src = logo;
  picture.alt = "";
  const front = make("div", "book-title", picture, make("p", "", title), make("p", "", subtitle));
  const contents = make("nav", "book-contents", make("h1", "", "Contents"));
  const body = make("div", "bd-article-container", front, contents);
  document.body.replaceChildren(
    make("main", "bd-main", make("div", "bd-content", body)));

  // What is folded on a page stands at the end, and each place says where.
  const unfolded = make("article", "bd-article", make("h1", "", "Solutions and folded code"));
  const anchors = new Map(), taken = new Set();
  const articles = pages.map(({ address, html }, i) => {
    const article = make("article", "bd-article");
    article.innerHTML = html;
    article.id = `page-${i}`;
    anchors.set(address, article.id);
    for (const element of article.querySelectorAll("[id]")) {
      const id = element.id;
      if (taken.has(id)) element.id = `${id}-page-${i}`;
      taken.add(element.id);
      anchors.set(`${address}#${id}`, element.id);
    }
    return article;
  });
  let folds = 0;
  articles.forEach((article, i) => {
    const titles = [...article.querySelectorAll("h1, h2, h3, p > strong:first-child")]
      .filter(e => e.tagName !== "STRONG" || /^(Exercise|\d)/.test(e.textContent));
    const folded = [...article.querySelectorAll("details, .admonition.dropdown")]
      .filter(e => !e.parentElement.closest("details, .admonition.dropdown"));
    const chapter = article.querySelector("h1");
    if (folded.length) unfolded.append(make("h2", "", words(chapter)));
    for (const fold of folded) {
      const name = fold.querySelector("summary, .admonition-title");
      const says = name.textContent.trim().split("\n")[0];
      const title = says === "Solution"
        ? titles.findLast(e => e.compareDocumentPosition(fold) & 4) : name;
      const here = `folded-${++folds}`, there = `unfolded-${folds}`;
      const place = make("p", "", toPage(there, says, " on page "));
      place.id = here;
      fold.replaceWith(place);
      const heading = make("h3", "", words(title), toPage(here, " of page "));
      name.remove();
      heading.id = there;
      unfolded.append(heading, make("div", "", ...fold.childNodes));
    }
    body.append(article);
  });
  if (folds) {
    unfolded.id = `page-${articles.length}`;
    body.append(unfolded);
    articles.push(unfolded);
  }

  // Links within the book stay within it; those to other files of the pages end here.
  for (const link of body.querySelectorAll("article a[href^='file:']")) {
    const { href } = link, id = anchors.get(href) ?? anchors.get(href.split("#")[0]);
    if (id) link.setAttribute("href", `#${id}`); else link.removeAttribute("href");
  }

  let style = "";
  articles.forEach((article, i) => {
    if (pages[i]?.part) contents.append(make("p", "", pages[i].part));
    const heading = article.querySelector("h1");
    contents.append(toPage(article.id, words(heading)));
    const running = JSON.stringify(heading.textContent);
    article.style.page = article.id;
    style += `@page ${article.id} { @top-right { content: ${running}; } }\n`;
  });
  document.head.append(make("style", "", style));
  document.title = title;
  await Promise.all([...document.images].map(image => image.decode()));
  await document.fonts.ready;
  return [...body.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(heading => {
    const copy = words(heading);
    copy.querySelectorAll(".katex-mathml, .to-page").forEach(e => e.remove());
    return copy.textContent.trim().replaceAll(/\s+/g, " ");
  });
}
