// The search page: all places that have every word, in the order of how much they say about them.
// PLACES comes from tools/search.py: pages, and the entries of the glossary one by one. It is
// loaded when there is something to look for, as a script, which browsers allow from disk, too.
"use strict";

{
  const LETTER = "[\\p{L}\\p{N}]";

  // As it is compared: the same length, and one spelling of -ise and -ize.
  const plain = text => text.toLowerCase().replace(/is(?=ation|e|ing)/g, "iz");

  // A long word is found in its other forms, too: penalty, penalties.
  const form = word => word.length < 3 ? `${word}(?!${LETTER})`
    : (word.length > 4 ? word.replace(/(ies|es|s|y)$/, "") : word) + `${LETTER}*`;
  const pattern = (words, flags = "gu") =>
    new RegExp(`(?<!${LETTER})` + words.map(form).join(`[^\\p{L}\\p{N}]+`), flags);
  const wordsOf = text => plain(text).match(new RegExp(`${LETTER}+`, "gu")) ?? [];
  const times = (what, text) => (plain(text).match(what) ?? []).length;

  // The words, and all of them in a row.
  const patterns = words => [...words, ...(words.length > 1 ? [words] : [])]
    .map(word => pattern([word].flat()));

  // What the glossary says of a term: its chapter comes first, and then its entry.
  const authority = (place, words) => Math.max(0, ...PLACES.filter(p => p.term).map(entry => {
    const term = wordsOf(entry.term);
    const part = pattern(words).test(term.slice(0, words.length).join(" "))
      ? words.length / term.length : 0;
    return part && (place.url === entry.taught ? 2 * part : place === entry ? part : 0);
  }));

  const search = words => {
    const asked = patterns(words);
    const found = PLACES.map(place => {
      const sections = place.sections.map(section => {
        const counts = asked.map(what => 5 * times(what, section.title)
          + times(what, section.text) + times(what, section.code));
        return { section, counts };
      });
      const counts = asked.map((what, i) => sections.reduce((sum, s) => sum + s.counts[i], 0)
        + 15 * times(what, place.title));
      const score = counts.reduce((sum, n) => sum + n / (n + 20), 0) + authority(place, words);
      const weight = s => s.counts.reduce((sum, n) => sum + n / (n + 2), 0);
      const best = sections.reduce((a, b) => weight(b) > weight(a) ? b : a).section;
      return { place, best, score, asked, all: words.every((_, i) => counts[i] > 0) };
    });
    return found.filter(f => f.all).sort((a, b) => b.score - a.score);
  };

  // Chinese words stand in the glossary, which says what they are called here.
  const searchChinese = words => {
    const match = (name, word) => name.includes(word) ? word.length / name.length
      : word.includes(name) ? 0.1 : 0;
    const score = entry => Math.max(...entry.chinese.flatMap(
      name => words.map(word => match(plain(name).replace(/\s/g, ""), word))));
    const entries = PLACES.filter(p => p.term)
      .map(place => ({ place, best: place.sections[0], asked: words.map(w => new RegExp(w, "gu")),
                       score: score(place) }))
      .filter(e => e.score > 0).sort((a, b) => b.score - a.score);
    const pages = entries.length ? search(wordsOf(entries[0].place.term)) : [];
    return [...entries, ...pages.filter(p => !entries.some(e => e.place === p.place))];
  };

  const make = (tag, content, more = {}) => {
    const element = Object.assign(document.createElement(tag), more);
    element.append(...[content].flat());
    return element;
  };

  // The text around the first find, or a whole entry, with what was found marked.
  const snippet = ({ place, best, asked }) => {
    const source = asked.some(what => times(what, best.text)) ? best.text
      : best.code.split(" ").filter(name => asked.some(what => times(what, name))).join(", ")
        || best.text;
    const compared = plain(source);
    const finds = asked.toReversed().flatMap(what => [...compared.matchAll(what)]);
    const first = place.term ? 0 : Math.max((finds[0]?.index ?? 0) - 80, 0);
    const from = first && compared.indexOf(" ", first) + 1;
    const to = source.length > from + 240 ? source.lastIndexOf(" ", from + 240) : source.length;
    const parts = [from ? "… " : ""];
    let done = from;
    for (const { index, 0: { length } } of finds.sort((a, b) => a.index - b.index)) {
      if (index >= done && index + length <= to) {
        parts.push(source.slice(done, index), make("mark", source.slice(index, index + length)));
        done = index + length;
      }
    }
    return [...parts, source.slice(done, to), to < source.length ? " …" : ""];
  };

  const item = found => {
    const { place, best } = found;
    const page = make("a", place.term ? `${place.title}: ${place.term}` : place.title,
      { href: place.term ? `${place.url}#${best.id}` : place.url });
    const where = place.term || best === place.sections[0] ? []
      : [make("a", best.title, { href: `${place.url}#${best.id}` }), ": "];
    return make("li", [page, make("p", [...where, ...snippet(found)], { className: "context" })]);
  };

  const query = (new URLSearchParams(location.search).get("q") ?? "").trim();
  document.querySelectorAll("input[name=q]").forEach(field => { field.value = query; });
  const words = wordsOf(query);

  const show = () => {
    const chinese = words.filter(word => /\p{Script=Han}/u.test(word));
    const found = chinese.length ? searchChinese(chinese) : search(words);
    const says = found.length ? `Found in ${found.length} ${found.length > 1 ? "places" : "place"}.`
      : `Nothing found for “${query}”. Fewer or other words may help, or the glossary: `
        + "it has each term in English and in Chinese.";
    document.getElementById("search-results").append(
      make("p", says, { className: "search-summary", role: "status" }),
      make("ul", found.map(item), { className: "search" }));
  };

  if (words.length) {
    document.body.append(make("script", [], { src: "searchtexts.js", onload: show }));
  }
}
