"""A Sphinx extension: the finished pages, lighter and open to everybody.

The theme writes pages for many purposes; MENDS says what is changed for ours. The rules work
on the finished text, so that they hold for any version of Sphinx: parsing half a megabyte of
typeset formulas into a tree would take a second a page.
"""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.jinja2glue import BuiltinTemplateLoader

SOURCE = Path(__file__).read_bytes()
FONTS = ["Main-Regular", "Math-Italic", "AMS-Regular", "Size1-Regular", "Size2-Regular"]
MENDS = [
    # The icons are in a font that the style sheet brings: no need for 1.5 MB of JavaScript.
    (r'<script [^>]*/fontawesome\.js[^>]*></script>', ""),
    # Search happens on its own page, so no other page needs the index of all words.
    (r'(?<=meta name="docsearch:version" content="" />)(\s*<script [^>]*></script>){3}', ""),
    # Nothing in the head is needed before the text can be seen.
    (
        r'<script ((?:data-[^ >]* )?src="[^"]*(?<!/documentation_options\.js\?v=\w{8})")>',
        r"<script defer \1>",
    ),
    # The fonts of formulas come when the first page is there, so no further page waits for them.
    (
        r'(<link [^>]* href="([^"]*/)katex\.min\.css[^>]*>)',
        r"\1" + "".join(rf'<link rel="prefetch" as="font" href="\2fonts/KaTeX_{font}.woff2" />'
                        for font in FONTS),
    ),
    # Light or dark is known before anything is painted; without JavaScript the page is light.
    (r'(<html [^>]*data-theme=)"auto"', r'\1"light"'),
    (
        r'localStorage\.getItem\("theme"\) \|\| "auto"',
        '(mode => mode !== "auto" ? mode : matchMedia("(prefers-color-scheme: dark)").matches'
        ' ? "dark" : "light")(document.documentElement.dataset.mode)',
    ),
    # A figure keeps its place while it is on its way, and comes when a reader comes near.
    (
        r'style="width: (\d+)px; height: (\d+)px;"',
        r'width="\1" height="\2" loading="lazy" decoding="async"',
    ),
    # Newer versions of Sphinx write the size so by themselves.
    (
        r'(<img [^>]*height="\d+" [^>]*width="\d+") />',
        r'\1 loading="lazy" decoding="async" />',
    ),
    # The logo and the search field are part of the navigation, too.
    (r'(<div id="pst-primary-sidebar")', r'\1 role="navigation" aria-label="Book"'),
    # A notebook is for keeping, not for looking at in a tab of its own.
    (r'(<a href="[^"]*/_sources/[^"]*\.ipynb") target="_blank"', r"\1 download"),
    # A summary is named by the words that it shows.
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # Roles that say less than the elements do, or that readers no longer know.
    (r' role="doc-biblioentry"| role="list"(?= class="citation-list")', ""),
    # An empty corner heads nothing.
    (r'<th( class="head")?>(<p></p>)?</th>', "<td></td>"),
]


def mend(page):
    """Return a finished page with MENDS applied."""
    for found, instead in MENDS:
        page = re.sub(found, instead, page)
    return page


class Pages(BuiltinTemplateLoader):
    """Sphinx's own templates, mended."""

    def render(self, template, context):
        return mend(super().render(template, context))


def fewer_shades(picture):
    """Return a picture with eleven shades a channel, apart from the colours of whole areas.

    So the thousands of shades along the edges of lines and letters become few: half the bytes,
    and no dot differs by more than 13 of 255. What fills a thousandth of the picture stays.
    """
    dots = np.asarray(picture.convert("RGB"))
    colours = dots.astype("i4") @ [65536, 256, 1]
    areas = np.bincount(colours.ravel())[colours] >= colours.size / 1000
    shades = np.rint(np.rint(dots / 25.5) * 25.5).astype("u1")
    return Image.fromarray(np.where(areas[..., None], dots, shades))


def lighten(app, doctree, docname):
    """Show pictures as WebP, which looks the same in a quarter of the bytes, and their size."""
    for image in doctree.findall(nodes.image):
        png = Path(app.srcdir, image["uri"])
        if app.builder.format != "html" or png.suffix != ".png":
            continue
        name = hashlib.sha256(SOURCE + png.read_bytes()).hexdigest()
        webp = Path(app.doctreedir, f"{name}.webp")
        with Image.open(png) as picture:
            if not webp.exists():
                fewer_shades(picture).save(webp, lossless=True, quality=100)
            if "width" not in image:
                dots = picture.info.get("dpi", (96, 96))
                size = (f"{96 * n / d:.0f}px" for n, d in zip(picture.size, dots, strict=True))
                image["width"], image["height"] = size
        image["uri"] = os.path.relpath(webp, app.srcdir)
        image["candidates"] = {"*": image["uri"]}
        app.env.images.add_file(docname, image["uri"])


def setup(app):
    """Register with Sphinx."""
    app.config.template_bridge = f"{__name__}.Pages"
    app.connect("doctree-resolved", lighten)
    # A change of this file rewrites every page.
    source = hashlib.sha256(SOURCE).hexdigest()
    app.add_config_value("pages_source", source, "html", str)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
